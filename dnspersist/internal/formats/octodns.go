package formats

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// mergeOctoDNS warns of putting a document in the place of the file it names.
const mergeOctoDNS = "# To be merged into the file of the zone: octoDNS removes records that the file does not list.\n"

// writeOctoDNS writes one document for each zone, in the order of the zones' first sets. Names
// and values are in single quotes, where YAML has no escape but the doubled quote, and no
// name is taken for a number or null. octoDNS splits values itself.
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
		for _, s := range list {
			b.WriteString(comments("#", s.Comment))
			fmt.Fprintf(b, "%s:\n  ttl: %d\n  type: %s\n", quoteYAML(s.relative()), s.TTL, s.rrtype())
			if s.CNAME != "" {
				fmt.Fprintf(b, "  value: %s\n", quoteYAML(s.CNAME+"."))
				continue
			}
			b.WriteString("  values:\n")
			for _, v := range s.whole() {
				fmt.Fprintf(b, "  - %s\n", quoteYAML(strings.ReplaceAll(v, ";", `\;`)))
			}
		}
	}
	return nil
}

// quoteYAML is for printable ASCII on one line.
func quoteYAML(s string) string {
	return "'" + strings.ReplaceAll(s, "'", "''") + "'"
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
