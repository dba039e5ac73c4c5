package site

import (
	"fmt"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

// Record is a TXT record that has to be in DNS.
type Record struct {
	// Name is the validation name, without a final dot.
	Name string
	// Target is where the record is published instead, in a zone of ours, if the validation name is
	// delegated by a CNAME; else empty.
	Target string
	// Value is the record's text. Over 255 octets it is published as several
	// character-strings, see record.Split.
	Value string
}

// Place is the name at which the TXT record is to be.
func (r Record) Place() string {
	if r.Target != "" {
		return r.Target
	}
	return r.Name
}

// AtEnd is the record where the CNAMEs that the owner has set at the validation name lead to,
// beside which nothing can be published; moved is false if there are none.
func (r Record) AtEnd(report propagation.Report) (at Record, moved bool) {
	if alias := report.Alias(); r.Target == "" && alias.Kind == propagation.AliasSet {
		if place, err := alias.Place(); err == nil {
			r.Target, moved = place, true
		}
	}
	return r, moved
}

// ZoneLine returns the record as a line of a zone file, with a TTL of one hour.
func (r Record) ZoneLine() string {
	return r.Place() + ". 3600 IN TXT " + record.Quote(r.Value)
}

// AliasLine returns the CNAME that delegates the validation name as a line of a zone file,
// with a TTL of one hour; empty if there is to be none.
func (r Record) AliasLine() string {
	if r.Target == "" {
		return ""
	}
	return r.Name + ". 3600 IN CNAME " + r.Target + "."
}

// UnsupportedNameError says that a name can never be validated this way.
type UnsupportedNameError struct {
	Name string
	Err  error
}

func (e *UnsupportedNameError) Error() string {
	return fmt.Sprintf("%s cannot get a certificate by dns-persist-01: %v", e.Name, e.Err)
}

func (e *UnsupportedNameError) Unwrap() error { return e.Err }
