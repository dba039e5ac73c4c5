package formats

import (
	"bytes"
	"fmt"
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
