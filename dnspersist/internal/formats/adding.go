package formats

import (
	"bytes"
	"fmt"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

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
