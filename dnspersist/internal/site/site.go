// Package site works out what a domain needs to have published, and where: the value for the account and
// the form that the CA wants, wide enough for all names that share it, at the validation name or where a
// CNAME of the owner leads to.
//
// It asks nobody but the storage and, before a label is used that the owner of a domain has chosen, the name
// servers for what others have there: without that, a tenant could have its record published at another
// tenant's label.
package site

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/ca"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/foreign"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/publish"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

// Policies for `policy=wildcard` in the records that are asked for.
const (
	// PolicyAuto asks for it where a wildcard is managed. It is the default.
	PolicyAuto = "auto"
	// PolicyExact never asks for it.
	PolicyExact = "exact"
	// PolicyWildcard always asks for it.
	PolicyWildcard = "wildcard"
)

// Maker makes sites for one account at one CA.
type Maker struct {
	// CA is the directory URL, Account what records name.
	CA      string
	Account ca.Identity
	// Policy is one of the Policy constants. Wildcard reports whether a wildcard is managed below a
	// validation name; it may be nil.
	Policy   string
	Wildcard func(validationName string) bool
	// AutoDialect says that the dialect is the CA's choice.
	AutoDialect bool
	// Delegation says where records are published in place of the validation names; nil for there.
	Delegation *Delegation
	// Publishes says that records are published without anybody asking for it, OnDemand that the domains
	// are anybody's choice.
	Publishes, OnDemand bool
	// Store has what is remembered, and Keeper is asked what others have at a label.
	Store  state.Store
	Keeper func(*propagation.Checker) *publish.Keeper
}

// Site is a domain at the place where its record belongs: what the CA has to find, the record that is to be
// published, and what is remembered of the name. It is made anew after each look, for an alias changes the
// record, and after the challenge, which may want another form.
type Site struct {
	*Maker
	Identifier string
	Want       record.Requirement
	Terms      ca.Terms
	Record     Record
	// also is the record that other frontends of the CA may want to see.
	Also *Record
	// wide is whether the record asked for serves wildcards.
	Wide bool
	// delegated is where the record is published in place of the validation name, empty without a
	// Delegation; any is whether it has to serve several domains there, foreign to what else the
	// validation name leads, and why what keeps its record from there.
	Delegated, Foreign, Why string
	Any                     bool
	// disputed says that the servers of the validation name differ about its CNAME: nothing is
	// written until they agree.
	Disputed error
	// known is what is remembered of the name.
	Known state.Name
}

// Domain is the one in the hash of a record of draft -02.
func (w *Site) Domain() string {
	if w.Any {
		return record.AnyDomain
	}
	return record.Base(w.Identifier)
}

// Site works out the record for an identifier. The record to ask for serves all names
// that share the validation name; the CA is content with less.
func (m *Maker) Site(ctx context.Context, identifier string, t ca.Terms) (*Site, error) {
	if len(t.Names) == 0 {
		return nil, fmt.Errorf("no issuer domain name of %s is known for %s: set issuer_domain_name to the one in the CA's documentation", m.CA, identifier)
	}
	name, err := record.ValidationName(identifier)
	if err != nil {
		return nil, &UnsupportedNameError{identifier, err}
	}
	wildcard, policy := record.IsWildcard(identifier), m.Policy
	if wildcard && policy == PolicyExact {
		return nil, &UnsupportedNameError{identifier, fmt.Errorf("policy exact never asks for policy=wildcard, which a wildcard name needs: remove the policy option")}
	}
	w := &Site{Maker: m, Identifier: identifier, Want: t.Requirement(identifier, m.Account), Terms: t}
	if w.Known, err = m.Store.Name(ctx, name); err != nil { // a name and its wildcard share it
		return nil, err
	}
	// a wildcard is managed, or was in earlier runs, for a record is never narrowed
	w.Wide = wildcard || policy == PolicyWildcard || policy != PolicyExact &&
		(m.Wildcard != nil && m.Wildcard(name) || slices.ContainsFunc(w.Known.Identifiers, record.IsWildcard))
	if err := w.delegate(ctx); err != nil {
		return nil, err
	}
	if w.Record, err = w.RecordFor(t.Dialect, w.Domain()); err != nil {
		return nil, err
	}
	return w, nil
}

// RecordFor makes the record in one dialect. The domain is AnyDomain or the name that is
// validated.
func (w *Site) RecordFor(dialect record.Dialect, domain string) (Record, error) {
	vname, err := record.ValidationName(w.Identifier)
	if err != nil {
		return Record{}, &UnsupportedNameError{w.Identifier, err}
	}
	uri := w.Account.URI
	if dialect == record.DialectHashed {
		if uri, err = record.HashedAccountURI(w.Terms.Prefix, domain, w.Account.Thumbprint, w.Account.URL); err != nil {
			return Record{}, fmt.Errorf("making the hashed account URI for %s: %w", w.Identifier, err)
		}
	} else if err := record.ValidAccountURI(uri); err != nil {
		return Record{}, fmt.Errorf("the account URI cannot be named in a record for %s: %w", w.Identifier, err)
	}
	value := record.Value{IssuerDomainName: w.Terms.Names[0], AccountURI: uri, Wildcard: w.Wide}
	return Record{Name: vname, Target: w.Delegated, Value: value.String()}, nil
}

// Refine fits the record that is asked for to the values that are published at the name. One for any
// domain is followed by one of the same kind, for a name is never given both; and a form
// that the CA has refused is not asked for again.
func (w *Site) Refine(values []string, o ca.Offer) error {
	dialect, domain := w.Terms.Dialect, w.Domain()
	if w.AutoDialect && w.Terms.Prefix != "" && o.Dialect == record.DialectAccountURL {
		// the directory is of draft -02, the last challenge was of an older one
		other := record.DialectAccountURL
		if r, err := w.RecordFor(dialect, domain); err == nil && w.Known.HasRefused(r.Value, w.Account.URL) {
			dialect, other = other, dialect
		}
		also, err := w.RecordFor(other, domain)
		if err == nil && !w.Known.HasRefused(also.Value, w.Account.URL) && !slices.Contains(values, also.Value) {
			w.Also = &also
		}
	}
	for _, v := range record.Evaluate(values, w.Want, time.Now()).Verdicts {
		if dialect == record.DialectHashed && w.Want.ServesAnyDomain(v.Value) {
			domain = record.AnyDomain
		}
	}
	var err error
	w.Record, err = w.RecordFor(dialect, domain)
	return err
}

// Target makes the wanted record a thing to look for in DNS.
func (w *Site) Target() propagation.Target {
	want, known, account, identifier := w.Want, w.Known, w.Account.URL, w.Identifier
	return propagation.Target{
		Name:   w.Record.Name,
		Host:   record.Base(w.Identifier),
		Accept: func(values []string) (bool, string) { return known.Satisfies(values, want, account) },
		Weigh:  Weigh(w.Want),
		Mistaken: func(zone string) (places []propagation.Place) {
			for _, m := range record.Misplacements(identifier, zone) {
				places = append(places, propagation.Place(m))
			}
			return places
		},
	}
}

// Weigh says how much a value has to do with what is wanted.
func Weigh(want record.Requirement) func(value string) int {
	return func(value string) int {
		for _, v := range record.Evaluate([]string{value}, want, time.Now()).Verdicts {
			switch {
			case v.Outlook != record.OutlookBad:
				return propagation.WeightRecord
			case v.Code != record.CodeForeign:
				return propagation.WeightNear
			}
		}
		return propagation.WeightNone
	}
}

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

// TTL is what is proposed for records, in seconds.
const TTL = 3600

// HostIn is a name as the panels of DNS providers want it, which add the zone themselves; empty if the
// zone is not known.
func HostIn(name, zone string) string {
	switch host, isBelow := strings.CutSuffix(name, "."+zone); {
	case zone == "":
		return ""
	case name == zone:
		return "@"
	case isBelow:
		return host
	}
	return ""
}

// LogFields are the fields of a log entry that asks for the record, what to copy first: where to publish
// it, as the report shows that, and without quotes, which a log would escape.
func (r Record) LogFields(report propagation.Report) []zap.Field {
	place, moved := r.AtEnd(report)
	zone := report.At(place.Place()).Zone
	if zone == "" && place.Place() == report.Name {
		zone = report.Zone
	}
	host := zap.Skip()
	if h := HostIn(place.Place(), zone); h != "" {
		host = zap.String("host", h)
	}
	fields := []zap.Field{
		zap.String("name", place.Place()), zap.String("value", place.Value), host, zap.Int("ttl", TTL), zap.String("type", "TXT"),
	}
	switch {
	case moved:
		fields = append(fields, zap.String("alias_of", r.Name))
	case r.Target != "":
		fields = append(fields, zap.String("cname_name", r.Name), zap.String("cname_value", r.Target+"."))
	}
	return fields
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

// mostNamed is how many values an advice quotes, and mostQuoted how much of each, in octets.
const (
	mostNamed  = 3
	mostQuoted = 300
)

// Finding is what is published at a validation name where none of it is the record.
type Finding struct {
	// Values are the values with what the CA makes of them.
	Values []ValueVerdict
	// Code is that of the value that was meant to be the record, else of the first one.
	Code record.Code
	// Do says what to do.
	Do string
}

// ValueVerdict is what the CA makes of one value.
type ValueVerdict struct {
	Value   string         `json:"value"`
	Code    record.Code    `json:"code"`
	Outlook record.Outlook `json:"outlook"`
	Reason  string         `json:"reason,omitempty"`
}

// Find explains a report on a name whose record is r. There is nothing to find where no value
// is published, or one may be good: the record counts as absent beside such a one only if the CA has refused it.
func Find(r Record, want record.Requirement, report propagation.Report) Finding {
	result := record.Evaluate(report.Values, want, time.Now())
	isRefused := result.Outlook() == record.OutlookDepends && report.Status == propagation.StatusAbsent
	if len(result.Verdicts) == 0 || result.Outlook() != record.OutlookBad && !isRefused {
		return Finding{}
	}
	f := Finding{Do: Mend(r, result), Code: result.Verdicts[0].Code}
	if i := slices.IndexFunc(result.Verdicts, record.Verdict.IsNearMiss); i >= 0 {
		f.Code = result.Verdicts[i].Code
	}
	for _, v := range result.Verdicts {
		f.Values = append(f.Values, ValueVerdict{v.Text, v.Code, v.Outlook, v.Reason()})
	}
	return f
}

// Mend says what to do about published values none of which is the record: what was meant to be it is
// replaced, and what others have is left alone. The value comes last and without quotes: it is copied out
// of logs, where quotes are escaped, and a record with backslashes in it is a valid record of a wrong value.
func Mend(r Record, result record.Result) string {
	var near, reasons []string
	for _, v := range result.Verdicts {
		if !v.IsNearMiss() {
			continue
		}
		near = append(near, foreign.Cut(v.Text, mostQuoted))
		if reason := v.Reason(); reason != "" && !slices.Contains(reasons, reason) {
			reasons = append(reasons, reason)
		}
	}
	if len(near) == 0 {
		return fmt.Sprintf("%s; publish beside what is published a TXT record at %s with this value: %s", result.Explain(), r.Place(), r.Value)
	}
	what := "the value " + near[0]
	if len(near) > 1 {
		what = "the values " + strings.Join(near[:min(len(near), mostNamed)], ", ")
		if more := len(near) - mostNamed; more > 0 {
			what += fmt.Sprintf(" and %d more", more)
		}
	}
	return fmt.Sprintf("%s; at %s replace %s by this one: %s", strings.Join(reasons[:min(len(reasons), mostNamed)], "; "), r.Place(), what, r.Value)
}

// Moved returns the advice to move a record that was found at another name, if it was.
func Moved(r Record, found []propagation.Diagnostic) string {
	i := slices.IndexFunc(found, func(d propagation.Diagnostic) bool { return d.Code == propagation.CodeWrongName && d.Place != "" })
	if i < 0 {
		return ""
	}
	return fmt.Sprintf("move the TXT record from %s to %s", found[i].Place, r.Place())
}
