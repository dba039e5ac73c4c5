package formats

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// The limits of a ChangeResourceRecordSets request, halved, for what is UPSERTed counts twice.
// A single value has a limit, too.
const (
	maxRoute53Records    = 1000 / 2
	maxRoute53Characters = 32000 / 2
	maxRoute53Value      = 4000
)

// changeBatch and what is in it are named as in the API.
type changeBatch struct {
	Comment string
	Changes []change
}

type change struct {
	Action            string
	ResourceRecordSet resourceRecordSet
}

type resourceRecordSet struct {
	Name            string
	Type            string
	TTL             uint32
	ResourceRecords []resourceRecord
}

type resourceRecord struct {
	Value string
}

// Batches splits the sets for Route53: each batch is for one zone and within the limits of a
// request. Sets with nothing to add are left out, so there may be no batch at all. A set that is
// over the limits alone is a batch of its own, and Write refuses it.
func Batches(sets []RRset) [][]RRset {
	type load struct{ batch, records, characters int }
	var batches [][]RRset
	open := make(map[string]load)
	for _, s := range sets {
		if len(s.additions()) == 0 {
			continue
		}
		records, characters := route53Cost(s)
		l, ok := open[s.Zone]
		if !ok || l.records+records > maxRoute53Records || l.characters+characters > maxRoute53Characters {
			l = load{batch: len(batches)}
			batches = append(batches, nil)
		}
		batches[l.batch] = append(batches[l.batch], s)
		open[s.Zone] = load{l.batch, l.records + records, l.characters + characters}
	}
	return batches
}

// route53Cost is what a set counts against the limits.
func route53Cost(s RRset) (records, characters int) {
	for _, v := range s.whole() {
		records++
		characters += len(s.route53Value(v))
	}
	return records, characters
}

// writeRoute53 writes a JSON document for each batch. There is none without anything to change:
// AWS refuses a batch without changes.
func writeRoute53(b *bytes.Buffer, sets []RRset) error {
	for _, list := range Batches(sets) {
		batch := changeBatch{Comment: fmt.Sprintf("dns-persist-01, names: %d", len(list))}
		for _, s := range list {
			if records, characters := route53Cost(s); records > maxRoute53Records || characters > maxRoute53Characters {
				return refuse(s, "its %d values of %d characters are over the limits of a change batch of Route 53, %d values and %d characters; remove values that are not needed",
					records, characters, maxRoute53Records, maxRoute53Characters)
			}
			set := resourceRecordSet{Name: s.Name + ".", Type: s.rrtype(), TTL: s.TTL}
			for _, v := range s.whole() {
				quoted := s.route53Value(v)
				if len(quoted) > maxRoute53Value {
					return refuse(s, "the value %.40q... has %d characters, and Route 53 takes %d; remove it or shorten it", v, len(quoted), maxRoute53Value)
				}
				set.ResourceRecords = append(set.ResourceRecords, resourceRecord{Value: quoted})
			}
			batch.Changes = append(batch.Changes, change{Action: "UPSERT", ResourceRecordSet: set})
		}
		if err := writeJSON(b, batch); err != nil {
			return err
		}
	}
	return nil
}

// route53Value is a value of the set as Route 53 takes it, which has octets as three octal digits.
func (s RRset) route53Value(value string) string { return s.data(value, "\\%03o") }

// writeJSON writes indented JSON without the escapes that are for web pages only.
func writeJSON(b *bytes.Buffer, v any) error {
	e := json.NewEncoder(b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// mergeOctoDNS warns of putting a document in the place of the file it names.
const mergeOctoDNS = "# To be merged into the file of the zone: octoDNS removes records that the file does not list.\n"

// octoDNSRecord is a record in the file of a zone.
type octoDNSRecord struct {
	TTL    uint32       `yaml:"ttl"`
	Type   string       `yaml:"type"`
	Value  *yaml.Node   `yaml:"value,omitempty"`
	Values []*yaml.Node `yaml:"values,omitempty"`
}

// writeOctoDNS writes one document for each zone, in the order of the zones' first sets. octoDNS
// splits values itself.
func writeOctoDNS(b *bytes.Buffer, sets []RRset) error {
	var zones []string
	byZone := make(map[string][]RRset)
	for _, s := range sets {
		if s.Zone == "" {
			return refuse(s, "its zone is not known, and octoDNS has a file for each zone; give the zone, or use %s or %s", Zone, NSUpdate)
		}
		values := s.whole()
		for _, v := range values {
			if reason := notForOctoDNS(v); reason != "" {
				return refuse(s, "the value %.40q %s; use another format, such as %s or %s", v, reason, Zone, NSUpdate)
			}
		}
		if len(values) == 0 {
			continue // there is no record, and none comes
		}
		if byZone[s.Zone] == nil {
			zones = append(zones, s.Zone)
		}
		byZone[s.Zone] = append(byZone[s.Zone], s)
	}
	for _, zone := range zones {
		fmt.Fprintf(b, "# %s.yaml\n---\n%s", zone, mergeOctoDNS)
		list := byZone[zone]
		slices.SortStableFunc(list, func(x, y RRset) int { return strings.Compare(naturalKey(x.relative()), naturalKey(y.relative())) })
		file := yaml.Node{Kind: yaml.MappingNode}
		for _, s := range list {
			name, r, node := quotedYAML(s.relative()), octoDNSRecord{TTL: s.TTL, Type: s.rrtype()}, new(yaml.Node)
			name.HeadComment = strings.TrimSuffix(comments("#", s.Comment), "\n")
			if s.CNAME != "" {
				r.Value = quotedYAML(s.CNAME + ".")
			} else {
				for _, v := range s.whole() {
					r.Values = append(r.Values, quotedYAML(strings.ReplaceAll(v, ";", `\;`)))
				}
			}
			if err := node.Encode(r); err != nil {
				return err
			}
			file.Content = append(file.Content, name, node)
		}
		e := yaml.NewEncoder(b)
		e.SetIndent(2)
		e.CompactSeqIndent()
		if err := e.Encode(&file); err != nil {
			return err
		}
	}
	return nil
}

// quotedYAML is a text that no reader of whatever version of YAML takes for a number or null.
func quotedYAML(s string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Style: yaml.SingleQuotedStyle, Value: s}
}

// notForOctoDNS is why octoDNS would refuse a value or publish another one.
func notForOctoDNS(v string) string {
	for i := range len(v) {
		switch c := v[i]; {
		case c < ' ' || c == 0x7f:
			return "holds a control character, which octoDNS cannot publish"
		case c > '~':
			return "is not ASCII, which octoDNS refuses"
		case c == '\\':
			return "holds a backslash, which octoDNS leaves to its providers to take for an escape or not"
		}
	}
	switch {
	case v == "":
		return "is empty, and octoDNS drops those"
	case v[0] == '"':
		return "begins with a quote, which octoDNS removes"
	case strings.Contains(v, `" "`):
		return `holds '" "', which octoDNS removes`
	}
	return ""
}

// digits are what octoDNS compares as numbers.
var digits = regexp.MustCompile("[0-9]+")

// naturalKey is a name by which names are in the order that octoDNS wants in a file: that of Python's
// natsort, where digits count as a number and go before text.
func naturalKey(name string) string {
	return digits.ReplaceAllStringFunc(name, func(n string) string {
		return "\x00" + strings.Repeat("0", maxLabel-len(n)) + n
	})
}

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
	switch {
	case !utf8.ValidString(v):
		return "is not UTF-8, which JSON cannot hold"
	case strings.ContainsFunc(v, func(r rune) bool { return r >= firstCombining }):
		return "holds characters that Terraform may change by Unicode normalization"
	}
	return ""
}
