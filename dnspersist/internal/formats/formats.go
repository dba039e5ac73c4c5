package formats

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"

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
