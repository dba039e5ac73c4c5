package formats

import (
	"bytes"
	"cmp"
	"fmt"
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
		slices.SortFunc(list, func(x, y RRset) int { return compareNatural(x.relative(), y.relative()) })
		for _, s := range list {
			b.WriteString(comments("#", s.Comment))
			if s.CNAME != "" {
				fmt.Fprintf(b, "%s:\n  ttl: %d\n  type: CNAME\n  value: %s\n", quoteYAML(s.relative()), s.TTL, quoteYAML(s.CNAME+"."))
				continue
			}
			fmt.Fprintf(b, "%s:\n  ttl: %d\n  type: TXT\n  values:\n", quoteYAML(s.relative()), s.TTL)
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

// compareNatural orders as octoDNS wants the keys of a file: like Python's natsort in its
// default way, where runs of digits count as numbers and come before text at the start.
func compareNatural(a, b string) int {
	x, y := a, b
	for {
		// Text and numbers take turns, beginning with text, which may be empty.
		var textX, textY, numberX, numberY string
		textX, x = cut(x, false)
		textY, y = cut(y, false)
		if c := strings.Compare(textX, textY); c != 0 {
			return c
		}
		numberX, x = cut(x, true)
		numberY, y = cut(y, true)
		if numberX == "" || numberY == "" {
			// One is at its end, and the shorter goes first. Equal keys keep any order.
			return cmp.Or(cmp.Compare(len(numberX), len(numberY)), strings.Compare(a, b))
		}
		numberX, numberY = strings.TrimLeft(numberX, "0"), strings.TrimLeft(numberY, "0")
		if c := cmp.Or(cmp.Compare(len(numberX), len(numberY)), strings.Compare(numberX, numberY)); c != 0 {
			return c
		}
		if x == "" || y == "" {
			return cmp.Or(cmp.Compare(len(x), len(y)), strings.Compare(a, b))
		}
	}
}

// cut splits off the digits, or all but digits, that a string begins with.
func cut(s string, digits bool) (head, tail string) {
	i := 0
	for i < len(s) && (s[i] >= '0' && s[i] <= '9') == digits {
		i++
	}
	return s[:i], s[i:]
}
