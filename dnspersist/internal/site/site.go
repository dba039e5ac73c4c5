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
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/ca"
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
