package formats

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

// RRset is the TXT record set at one validation name, or at the target of one that is
// delegated by a CNAME, which is a set as well.
type RRset struct {
	// Name is the validation name in lower case ASCII without a final dot, such as
	// "_validation-persist.example.com".
	Name string
	// Zone is the apex of its zone without a final dot; empty if it is not known.
	Zone string
	// TTL is in seconds, and is used for what is written. Where there is a record set, it should
	// be the TTL of that, for all records of a set have the same.
	TTL uint32
	// Add are the whole values, not split, that are to be added. If all are published, nothing
	// changes.
	Add []string
	// Published are the whole values that are published now, those of others included.
	Published []string
	// Known is set if Published was read, rather than left empty.
	Known bool
	// CNAME is the target, without final dot, if the set is an alias in place of TXT records.
	// Add is empty then, and Published the target that it has, if it has one: the same.
	CNAME string
	// Comment are lines for the formats that have comments.
	Comment []string
}

// Format is a form in which record sets are written.
type Format string

// The formats.
const (
	// Zone are lines of a zone file (RFC 1035), to be added to those of the zone.
	Zone Format = "zone"
	// NSUpdate is a script for the nsupdate of BIND. It never deletes, and running it twice
	// does no more than running it once.
	NSUpdate Format = "nsupdate"
	// Route53 are change batches: aws route53 change-resource-record-sets --change-batch. Each is for one
	// hosted zone and has limits, so there may be several, as JSON documents; see Batches.
	Route53 Format = "route53"
	// OctoDNS are records for octoDNS's YamlProvider, a YAML document for each zone, to be
	// merged into the file of the zone.
	OctoDNS Format = "octodns"
	// Terraform is a file of variables, such as records.auto.tfvars.json, with a map
	// dns_persist_records by name for a for_each. It is to hold all names each time, for a
	// for_each removes what is no longer listed. Values are not split: how a provider wants
	// those over 255 octets is for the provider to know.
	Terraform Format = "terraform"
)

// All are the formats in the order in which they are listed to people.
var All = []Format{Zone, NSUpdate, Route53, OctoDNS, Terraform}

// Replaces reports whether the format sets the whole record set of a name: what it does not list
// is removed. It needs sets that are Known.
func (f Format) Replaces() bool {
	return f == Route53 || f == OctoDNS || f == Terraform
}

// Write writes the sets in a format. It writes nothing at all if there is an error in any set.
func Write(w io.Writer, f Format, sets []RRset) error {
	render := map[Format]func(*bytes.Buffer, []RRset) error{
		Zone: writeZone, NSUpdate: writeNSUpdate, Route53: writeRoute53, OctoDNS: writeOctoDNS, Terraform: writeTerraform,
	}[f]
	if render == nil {
		return fmt.Errorf("the format %q is not known; use one of %v", string(f), All)
	}
	if err := check(f, sets); err != nil {
		return err
	}
	var b bytes.Buffer
	if err := render(&b, sets); err != nil {
		return err
	}
	_, err := w.Write(b.Bytes())
	return err
}

// additions are the values that are not published yet, each once. Of a set that was not read
// nothing is taken to be published.
func (s RRset) additions() []string {
	if s.CNAME != "" {
		if s.Known && len(s.Published) > 0 {
			return nil
		}
		return []string{s.CNAME}
	}
	var list []string
	for _, v := range s.Add {
		if !slices.Contains(list, v) && (!s.Known || !slices.Contains(s.Published, v)) {
			list = append(list, v)
		}
	}
	return list
}

// whole is the record set as it is to be: the published values, in their order, and then what is added.
func (s RRset) whole() []string {
	if s.CNAME != "" {
		return []string{s.CNAME}
	}
	var list []string
	for _, v := range slices.Concat(s.Published, s.Add) {
		if !slices.Contains(list, v) {
			list = append(list, v)
		}
	}
	return list
}

// rrtype is the type of the set's records.
func (s RRset) rrtype() string {
	if s.CNAME != "" {
		return "CNAME"
	}
	return "TXT"
}

// data is a value of the set in master file format. octet is the format of octets that are not
// printable ASCII.
func (s RRset) data(value, octet string) string {
	if s.CNAME != "" {
		return value + "."
	}
	return record.QuoteWith(value, octet)
}

// relative is the name within its zone, empty at the apex.
func (s RRset) relative() string {
	return strings.TrimSuffix(strings.TrimSuffix(s.Name, s.Zone), ".")
}

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
	if rest := strings.TrimLeft(name, "abcdefghijklmnopqrstuvwxyz0123456789._-"); rest != "" {
		return fmt.Errorf("holds %q", rest[:1])
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

// nothingToAdd is the line for a set that is published already, in the formats that only add.
const nothingToAdd = "%s %s.: nothing to add, it is published already\n"

// writeZone writes zone file lines. Names are absolute, so that no $ORIGIN changes them.
func writeZone(b *bytes.Buffer, sets []RRset) error {
	for _, s := range sets {
		b.WriteString(comments(";", s.Comment))
		add := s.additions()
		if len(add) == 0 {
			fmt.Fprintf(b, nothingToAdd, ";", s.Name)
		}
		for _, v := range add {
			b.WriteString(line(s, v))
		}
	}
	return nil
}

// line is one record in master file format.
func line(s RRset, value string) string {
	return fmt.Sprintf("%s. %d IN %s %s\n", s.Name, s.TTL, s.rrtype(), s.data(value, "\\%03d"))
}

const (
	// maxUpdates is how many records one message adds at most.
	maxUpdates = 100
	// maxMessage is how many octets of records one message holds at most: half of what would
	// fit, for there are the zone and the signature, too.
	maxMessage = 32 << 10
)

// writeNSUpdate writes a script. There must be no empty line in it: nsupdate takes that for
// "send". Nor is there a need to escape semicolons: a comment begins only at the start of a
// line, and record data are parsed as in a zone file, within quotes.
func writeNSUpdate(b *bytes.Buffer, sets []RRset) error {
	var zones []string
	byZone := make(map[string][]RRset)
	for _, s := range sets {
		if len(s.additions()) == 0 {
			b.WriteString(comments(";", s.Comment))
			fmt.Fprintf(b, nothingToAdd, ";", s.Name)
			continue
		}
		if byZone[s.Zone] == nil && s.Zone != "" {
			zones = append(zones, s.Zone)
		}
		byZone[s.Zone] = append(byZone[s.Zone], s)
	}
	// Sets without a zone go first, each by itself: nsupdate then looks for the zone of the
	// first name in a message, but "zone" holds until the end of the script.
	for _, s := range byZone[""] {
		writeUpdates(b, []RRset{s})
	}
	for _, zone := range zones {
		fmt.Fprintf(b, "zone %s.\n", zone)
		writeUpdates(b, byZone[zone])
	}
	return nil
}

// writeUpdates adds the records of one zone, in as many messages as it takes.
func writeUpdates(b *bytes.Buffer, sets []RRset) {
	records, octets := 0, 0
	for _, s := range sets {
		b.WriteString(comments(";", s.Comment))
		for _, v := range s.additions() {
			size := wireSize(s, v)
			if records == maxUpdates || records > 0 && octets+size > maxMessage {
				b.WriteString("send\n")
				records, octets = 0, 0
			}
			b.WriteString("update add " + line(s, v))
			records, octets = records+1, octets+size
		}
	}
	b.WriteString("send\n")
}

// wireSize is the size of a record in a message without compression.
func wireSize(s RRset, value string) int {
	const fixed = 10 // type, class, TTL and length
	return len(s.Name) + 2 + fixed + len(value) + len(record.Split(value))
}
