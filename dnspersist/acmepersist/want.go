package acmepersist

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/ca"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

// wanted is what a CA has to find for one identifier.
type wanted struct {
	identifier string
	want       record.Want
	terms      ca.Terms
	record     Record
	// also is the record that other frontends of the CA may want to see.
	also *Record
	// wide is whether the record asked for serves wildcards.
	wide bool
	// target is where the record stands in place of the validation name, empty without a
	// Delegation; any is whether it has to serve several domains there, foreign to what else the
	// validation name leads, and why what keeps its record from there.
	target, foreign, why string
	any                  bool
	// disputed says that the servers of the validation name differ about its CNAME: nothing is
	// written until they agree.
	disputed error
}

// domain is the one in the hash of a record of draft -02.
func (w wanted) domain() string {
	if w.any {
		return record.AnyDomain
	}
	return record.Base(w.identifier)
}

// want works out the record for an identifier. The record to ask for serves all names
// that share the validation name; the CA is content with less.
func (s *session) want(ctx context.Context, identifier string, t ca.Terms) (wanted, error) {
	if len(t.Names) == 0 {
		return wanted{}, fmt.Errorf("no issuer domain name of %s is known for %s: set issuer_domain_name to the one in the CA's documentation", s.iss.CA, identifier)
	}
	vname, err := record.ValidationName(identifier)
	if err != nil {
		return wanted{}, &UnsupportedNameError{identifier, err}
	}
	wildcard := record.IsWildcard(identifier)
	if wildcard && s.iss.Policy == PolicyExact {
		return wanted{}, &UnsupportedNameError{identifier, fmt.Errorf("policy exact never asks for policy=wildcard, which a wildcard name needs: remove the policy option")}
	}
	w := wanted{identifier: identifier, want: s.hashedWant(t, identifier), terms: t, wide: wildcard}
	switch {
	case s.iss.Policy == PolicyWildcard:
		w.wide = true
	case !wildcard && s.iss.Policy != PolicyExact:
		if w.wide, err = s.servesWildcard(ctx, vname); err != nil {
			return wanted{}, err
		}
	}
	if err := s.delegate(ctx, &w, vname); err != nil {
		return wanted{}, err
	}
	w.record, err = s.recordFor(w, t.Dialect, w.domain())
	return w, err
}

// servesWildcard reports whether the record of a validation name has to serve a wildcard as well:
// one is managed, or was in earlier runs, for a record is never narrowed.
func (s *session) servesWildcard(ctx context.Context, validationName string) (bool, error) {
	if s.iss.Wildcard != nil && s.iss.Wildcard(validationName) {
		return true, nil
	}
	n, err := s.store.Name(ctx, validationName) // a name and its wildcard share it
	return slices.ContainsFunc(n.Identifiers, record.IsWildcard), err
}

// recordFor makes the record in one dialect. The domain is AnyDomain or the name that is
// validated.
func (s *session) recordFor(w wanted, dialect record.Dialect, domain string) (Record, error) {
	vname, err := record.ValidationName(w.identifier)
	if err != nil {
		return Record{}, &UnsupportedNameError{w.identifier, err}
	}
	uri := s.account.Identity.URI
	if dialect == record.DialectHashed {
		if uri, err = record.HashedAccountURI(w.terms.Prefix, domain, s.account.Thumbprint, s.account.URL); err != nil {
			return Record{}, fmt.Errorf("making the hashed account URI for %s: %w", w.identifier, err)
		}
	} else if err := record.ValidAccountURI(uri); err != nil {
		return Record{}, fmt.Errorf("the account URI cannot stand in a record for %s: %w", w.identifier, err)
	}
	value := record.Value{IssuerDomainName: w.terms.Names[0], AccountURI: uri, Wildcard: w.wide}
	return Record{Name: vname, Target: w.target, Value: value.String()}, nil
}

// refine fits the record that is asked for to what stands at the name. One for any
// domain is followed by one of the same kind, for a name is never given both; and a form
// that the CA has refused is not asked for again.
func (s *session) refine(w *wanted, values []string, known state.Name, o ca.Offer) error {
	dialect, domain := w.terms.Dialect, w.domain()
	if s.iss.ca.Dialect == ca.DialectAuto && w.terms.Prefix != "" && o.Dialect == record.DialectAccountURL {
		// the directory is of draft -02, the last challenge was of an older one
		other := record.DialectAccountURL
		if r, err := s.recordFor(*w, dialect, domain); err == nil && known.HasRefused(r.Value, s.account.URL) {
			dialect, other = other, dialect
		}
		also, err := s.recordFor(*w, other, domain)
		if err == nil && !known.HasRefused(also.Value, s.account.URL) && !slices.Contains(values, also.Value) {
			w.also = &also
		}
	}
	for _, v := range record.Evaluate(values, w.want, time.Now()).Verdicts {
		if dialect == record.DialectHashed && w.want.ServesAnyDomain(v.Value) {
			domain = record.AnyDomain
		}
	}
	var err error
	w.record, err = s.recordFor(*w, dialect, domain)
	return err
}

// target makes the wanted record a thing to look for in DNS.
func (s *session) target(w wanted, known state.Name) propagation.Target {
	account := s.account.URL
	return propagation.Target{
		Name:   w.record.Name,
		Host:   record.Base(w.identifier),
		Accept: func(values []string) (bool, string) { return known.Satisfies(values, w.want, account) },
		Weigh:  weigh(w.want),
		Mistaken: func(zone string) (places []propagation.Place) {
			for _, m := range record.Misplacements(w.identifier, zone) {
				places = append(places, propagation.Place(m))
			}
			return places
		},
	}
}

// weigh says how much a value has to do with what is wanted.
func weigh(want record.Want) func(value string) int {
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
