package formats

import (
	"bytes"
	"unicode/utf8"
)

// variables is the file; the maps are written in the order of their keys.
type variables struct {
	Records map[string]variable `json:"dns_persist_records"`
	Aliases map[string]variable `json:"dns_persist_aliases,omitempty"`
}

type variable struct {
	Zone   string   `json:"zone"`
	TTL    uint32   `json:"ttl"`
	Target string   `json:"target,omitempty"`
	Values []string `json:"values,omitempty"`
}

// firstCombining is the first character that Unicode normalization may change or join with
// another: Terraform has all strings in normalization form C.
const firstCombining = '\u0300'

// writeTerraform writes values as they are: in a file of variables Terraform takes strings
// literally, ${ included.
func writeTerraform(b *bytes.Buffer, sets []RRset) error {
	file := variables{Records: make(map[string]variable, len(sets)), Aliases: make(map[string]variable)}
	for _, s := range sets {
		if s.CNAME != "" {
			file.Aliases[s.Name] = variable{Zone: s.Zone, TTL: s.TTL, Target: s.CNAME + "."}
			continue
		}
		values := s.whole()
		for _, v := range values {
			if reason := notForTerraform(v); reason != "" {
				return refuse(s, "the value %.40q %s; use another format, such as %s or %s", v, reason, Zone, NSUpdate)
			}
		}
		if len(values) > 0 { // else there is no record, and none comes
			file.Records[s.Name] = variable{Zone: s.Zone, TTL: s.TTL, Values: values}
		}
	}
	return writeJSON(b, file)
}

// notForTerraform is why Terraform would have another value.
func notForTerraform(v string) string {
	if !utf8.ValidString(v) {
		return "is not UTF-8, which JSON cannot hold"
	}
	for _, r := range v {
		if r >= firstCombining {
			return "holds characters that Terraform may change by Unicode normalization"
		}
	}
	return ""
}
