package acmepersist

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/account"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/ca"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/site"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

// Wanted is a record that a CA and account need at a validation name.
type Wanted struct {
	// Name is the validation name, without final dot.
	Name string `json:"name"`
	// Identifiers are the names that it is for, sorted.
	Identifiers []string `json:"identifiers"`
	// CA is the directory URL, Account the account URL.
	CA      string `json:"ca"`
	Account string `json:"account"`
	// IssuerDomainName, Dialect and AccountURI are what Value is made of.
	IssuerDomainName string         `json:"issuer_domain_name"`
	Dialect          record.Dialect `json:"dialect"`
	AccountURI       string         `json:"account_uri"`
	// Value is what to publish.
	Value string `json:"value"`
	// Target is where the value is to be published, if Name is to be a CNAME to it; else empty.
	Target string `json:"target,omitempty"`
	// OrValue is what other frontends of the CA may want to see; empty if they agree.
	OrValue string `json:"or_value,omitempty"`
	// Presumed says that the CA has not shown yet what it wants: the issuer domain name is
	// from its directory's caaIdentities, and an order will tell.
	Presumed bool `json:"presumed,omitempty"`
	// Note says what is doubtful about the issuer domain name; empty if nothing is.
	Note string `json:"note,omitempty"`
	// Standby says that it is for another account, whose key lies elsewhere.
	Standby bool `json:"standby,omitempty"`
}

// Wanted works out the records for identifiers before any order: one for each validation
// name, in the order of the names. The account is checked at the CA (section 4.5 of draft
// -02), never bound or registered: without one the error wraps ErrNoAccount. A record for
// each standby account comes behind that of the bound one; only their URL and Thumbprint
// are read. With a pinned AccountURI there is none in the deployed dialect, but an error.
func (iss *Issuer) Wanted(ctx context.Context, identifiers []string, standby ...Account) ([]Wanted, error) {
	s, o, t, err := openToTell(ctx, iss)
	if err != nil {
		return nil, err
	}
	if len(standby) > 0 && iss.AccountURI != "" && t.Dialect == record.DialectAccountURL {
		return nil, fmt.Errorf("account_uri pins the records for %s to %q, which is one account's, so what the CA wants for the standby account %q is not known: make that account's records with --account-url and --issuer, giving as --account-url the URI that the CA wants for it", iss.CA, iss.AccountURI, standby[0].URL)
	}
	groups, names, err := byValidationName(identifiers)
	if err != nil {
		return nil, err
	}
	sites := make([]*siteSession, len(names))
	err = inParallel(ctx, len(names), func(i int) (err error) {
		sites[i], err = s.site(ctx, strictest(groups[names[i]]), t)
		return err
	})
	if err != nil {
		return nil, err
	}
	var all []Wanted
	for i, name := range names {
		w := sites[i]
		if err := w.Refine(nil, o); err != nil {
			return nil, err
		}
		tell := w.wanted(groups[name])
		tell.Presumed = s.iss.IssuerDomainName == "" && !s.HasTerms(o)
		all = append(all, tell)
		for _, other := range standby {
			if other.URL == s.account.URL {
				return nil, fmt.Errorf("the standby account %q is the bound one: make a standby of another account, registered elsewhere", other.URL)
			}
			spare := *s
			spare.account = &account.Book{Identity: ca.Identity{URL: other.URL, URI: cmp.Or(iss.AccountURI, other.URL), Thumbprint: other.Thumbprint}}
			theirs := w.clone()
			theirs.session, theirs.Maker, theirs.Also = &spare, spare.maker(spare.account.Identity), nil
			if theirs.Record, err = theirs.RecordFor(t.Dialect, w.Domain()); err != nil {
				return nil, fmt.Errorf("making the record of the standby account %q: %w", other.URL, err)
			}
			second := theirs.wanted(groups[name])
			second.Standby = true
			all = append(all, second)
		}
	}
	return all, nil
}

// wanted tells what was worked out.
func (w *siteSession) wanted(identifiers []string) Wanted {
	tell := Wanted{
		Name: w.Record.Name, Identifiers: identifiers, CA: w.iss.CA, Account: w.account.URL,
		Value: w.Record.Value, Target: w.Record.Target, Dialect: w.Terms.Dialect,
		Note: w.UnlistedIssuer(),
	}
	if w.Also != nil {
		tell.OrValue = w.Also.Value
	}
	if p, err := record.Parse(w.Record.Value); err == nil {
		tell.IssuerDomainName, tell.AccountURI = p.IssuerDomainName, p.AccountURI
	}
	return tell
}

// openToTell opens a session for somebody who is to be shown records: with the bound
// account, confirmed by the CA, and the terms.
func openToTell(ctx context.Context, iss *Issuer) (*session, ca.Offer, ca.Terms, error) {
	s, err := openKnown(ctx, iss)
	if err != nil {
		return nil, ca.Offer{}, ca.Terms{}, err
	}
	if s == nil {
		_, err := iss.accounts.MustKnow(ctx)
		return nil, ca.Offer{}, ca.Terms{}, err
	}
	if err := s.confirmAccount(ctx); err != nil {
		return nil, ca.Offer{}, ca.Terms{}, err
	}
	o, err := s.iss.ca.LoadOffer(ctx)
	if err != nil {
		return nil, ca.Offer{}, ca.Terms{}, err
	}
	t, err := s.Terms(o)
	return s, o, t, err
}

// byValidationName groups identifiers. names are the validation names in the order in which
// they come.
func byValidationName(identifiers []string) (groups map[string][]string, names []string, err error) {
	groups = make(map[string][]string)
	var errs []error
	for _, id := range identifiers {
		normal, err := record.Normalize(id)
		if err != nil {
			errs = append(errs, &site.UnsupportedNameError{Name: id, Err: err})
			continue
		}
		name := record.Label + "." + record.Base(normal)
		if _, ok := groups[name]; !ok {
			names = append(names, name)
		}
		if !slices.Contains(groups[name], normal) {
			groups[name] = append(groups[name], normal)
			sort.Strings(groups[name])
		}
	}
	return groups, names, errors.Join(errs...)
}

// strictest is the identifier whose record serves all of them.
func strictest(identifiers []string) string {
	if i := slices.IndexFunc(identifiers, record.IsWildcard); i >= 0 {
		return identifiers[i]
	}
	return identifiers[0]
}
