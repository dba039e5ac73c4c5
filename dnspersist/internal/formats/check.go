package formats

import (
	"fmt"
	"math"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	// maxName and maxLabel are the limits of a name in text without its final dot (RFC 1035).
	maxName, maxLabel = 253, 63
	// maxValue is the longest value that is added, in octets. It fits into a DNS message with
	// room to spare, and into a line of nsupdate if every octet of it is escaped.
	maxValue = 16 << 10
	// maxComment is the longest comment in octets. miekg/dns, with which many tools read zone
	// files, takes no comment whose 512th octet is a semicolon; nsupdate reads a longer line
	// than 128 KiB as two, and would take the second for a command.
	maxComment = 500
)

// refuse is an error about one set: what is wrong, and what to do.
func refuse(s RRset, format string, args ...any) error {
	return fmt.Errorf("the record set %q: %w", s.Name, fmt.Errorf(format, args...))
}

// check refuses what would make the output mean something else than the sets do.
func check(f Format, sets []RRset) error {
	seen := make(map[string]bool, len(sets))
	for _, s := range sets {
		if err := checkName(s.Name); err != nil {
			return refuse(s, "its name %w; give a domain name in lower case ASCII without the final dot", err)
		}
		if seen[s.Name] {
			return refuse(s, "it is listed twice; put its values into one set")
		}
		seen[s.Name] = true
		if s.Zone != "" {
			if err := checkName(s.Zone); err != nil {
				return refuse(s, "its zone %q %w; give the zone in lower case ASCII without the final dot, or leave it out", s.Zone, err)
			}
			if s.Name != s.Zone && !strings.HasSuffix(s.Name, "."+s.Zone) {
				return refuse(s, "it is not within its zone %q; give the zone that the name is in", s.Zone)
			}
		}
		if s.TTL > math.MaxInt32 {
			return refuse(s, "the TTL %d is over %d (RFC 2181); give a smaller one", s.TTL, math.MaxInt32)
		}
		if s.CNAME != "" {
			if err := checkName(s.CNAME); err != nil {
				return refuse(s, "its target %q %w; give a domain name in lower case ASCII without the final dot", s.CNAME, err)
			}
			for _, v := range s.Published {
				if v != s.CNAME {
					return refuse(s, "it is an alias of %q now, and is not changed to %q; leave it out, or remove the alias", v, s.CNAME)
				}
			}
		}
		for _, v := range s.Add {
			if len(v) > maxValue {
				return refuse(s, "a value to add has %d octets, over %d; give a shorter one", len(v), maxValue)
			}
		}
		if f.Replaces() && !s.Known {
			return refuse(s, "what is published there is not known, and %s would remove it; look the name up first, or use %s or %s", f, Zone, NSUpdate)
		}
	}
	return nil
}

// checkName refuses names that would mean something else in some format.
func checkName(name string) error {
	if len(name) > maxName {
		return fmt.Errorf("has %d octets, over %d", len(name), maxName)
	}
	for label := range strings.SplitSeq(name, ".") {
		switch {
		case label == "":
			return fmt.Errorf("has an empty label")
		case len(label) > maxLabel:
			return fmt.Errorf("has a label of %d octets, over %d", len(label), maxLabel)
		}
	}
	for i := range len(name) {
		c := name[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '.' && c != '_' && c != '-' {
			return fmt.Errorf("holds %q", name[i:i+1])
		}
	}
	return nil
}

// comments returns the comment lines of a set behind a prefix, each surely one line.
func comments(prefix string, lines []string) string {
	var b strings.Builder
	for _, line := range lines {
		b.WriteString(strings.TrimRight(prefix+" "+oneLine(line), " "))
		b.WriteByte('\n')
	}
	return b.String()
}

// oneLine replaces what some tool may take for the end of a line, or cannot print, and cuts
// what is too long.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			return ' '
		}
		return r
	}, s)
	if len(s) <= maxComment {
		return s
	}
	const more = "..."
	end := maxComment - len(more)
	for !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + more
}
