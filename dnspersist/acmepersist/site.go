package acmepersist

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
	identifier string
	want       record.Requirement
	terms      ca.Terms
	record     Record
	// also is the record that other frontends of the CA may want to see.
	also *Record
	// wide is whether the record asked for serves wildcards.
	wide bool
	// delegated is where the record is published in place of the validation name, empty without a
	// Delegation; any is whether it has to serve several domains there, foreign to what else the
	// validation name leads, and why what keeps its record from there.
	delegated, foreign, why string
	any                     bool
	// disputed says that the servers of the validation name differ about its CNAME: nothing is
	// written until they agree.
	disputed error
	// known is what is remembered of the name.
	known state.Name
}

// domain is the one in the hash of a record of draft -02.
func (w *Site) domain() string {
	if w.any {
		return record.AnyDomain
	}
	return record.Base(w.identifier)
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
	w := &Site{Maker: m, identifier: identifier, want: t.Requirement(identifier, m.Account), terms: t}
	if w.known, err = m.Store.Name(ctx, name); err != nil { // a name and its wildcard share it
		return nil, err
	}
	// a wildcard is managed, or was in earlier runs, for a record is never narrowed
	w.wide = wildcard || policy == PolicyWildcard || policy != PolicyExact &&
		(m.Wildcard != nil && m.Wildcard(name) || slices.ContainsFunc(w.known.Identifiers, record.IsWildcard))
	if err := w.delegate(ctx); err != nil {
		return nil, err
	}
	if w.record, err = w.recordFor(t.Dialect, w.domain()); err != nil {
		return nil, err
	}
	return w, nil
}

// recordFor makes the record in one dialect. The domain is AnyDomain or the name that is
// validated.
func (w *Site) recordFor(dialect record.Dialect, domain string) (Record, error) {
	vname, err := record.ValidationName(w.identifier)
	if err != nil {
		return Record{}, &UnsupportedNameError{w.identifier, err}
	}
	uri := w.Account.URI
	if dialect == record.DialectHashed {
		if uri, err = record.HashedAccountURI(w.terms.Prefix, domain, w.Account.Thumbprint, w.Account.URL); err != nil {
			return Record{}, fmt.Errorf("making the hashed account URI for %s: %w", w.identifier, err)
		}
	} else if err := record.ValidAccountURI(uri); err != nil {
		return Record{}, fmt.Errorf("the account URI cannot stand in a record for %s: %w", w.identifier, err)
	}
	value := record.Value{IssuerDomainName: w.terms.Names[0], AccountURI: uri, Wildcard: w.wide}
	return Record{Name: vname, Target: w.delegated, Value: value.String()}, nil
}

// refine fits the record that is asked for to what stands at the name. One for any
// domain is followed by one of the same kind, for a name is never given both; and a form
// that the CA has refused is not asked for again.
func (w *Site) refine(values []string, o ca.Offer) error {
	dialect, domain := w.terms.Dialect, w.domain()
	if w.AutoDialect && w.terms.Prefix != "" && o.Dialect == record.DialectAccountURL {
		// the directory is of draft -02, the last challenge was of an older one
		other := record.DialectAccountURL
		if r, err := w.recordFor(dialect, domain); err == nil && w.known.HasRefused(r.Value, w.Account.URL) {
			dialect, other = other, dialect
		}
		also, err := w.recordFor(other, domain)
		if err == nil && !w.known.HasRefused(also.Value, w.Account.URL) && !slices.Contains(values, also.Value) {
			w.also = &also
		}
	}
	for _, v := range record.Evaluate(values, w.want, time.Now()).Verdicts {
		if dialect == record.DialectHashed && w.want.ServesAnyDomain(v.Value) {
			domain = record.AnyDomain
		}
	}
	var err error
	w.record, err = w.recordFor(dialect, domain)
	return err
}

// target makes the wanted record a thing to look for in DNS.
func (w *Site) target() propagation.Target {
	want, known, account, identifier := w.want, w.known, w.Account.URL, w.identifier
	return propagation.Target{
		Name:   w.record.Name,
		Host:   record.Base(w.identifier),
		Accept: func(values []string) (bool, string) { return known.Satisfies(values, want, account) },
		Weigh:  weigh(w.want),
		Mistaken: func(zone string) (places []propagation.Place) {
			for _, m := range record.Misplacements(identifier, zone) {
				places = append(places, propagation.Place(m))
			}
			return places
		},
	}
}

// weigh says how much a value has to do with what is wanted.
func weigh(want record.Requirement) func(value string) int {
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
