package operator

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/managed"
)

// Leftovers lists what was written at names for which nothing needs a record any more, for
// all CAs and accounts of the configuration. What fails for one of them is an error beside what the
// others have.
func (o *Operator) Leftovers(ctx context.Context) ([]*acmepersist.Leftover, error) {
	p := o.Plan()
	names := p.Names()
	issuers, err := o.issuers("")
	if err != nil {
		return nil, err
	}
	var all []*acmepersist.Leftover
	var failed []error
	for _, iss := range distinct(issuers, accountOf) { // others have the same inventory
		some, err := iss.Leftovers(ctx, names)
		if errors.Is(err, acmepersist.ErrNoAccount) {
			continue
		}
		if err != nil {
			failed = append(failed, err)
		}
		for _, l := range some {
			if by := o.providerOf(p, names, iss, l.Zone, issuers); by != nil {
				l.By(by)
			}
			all = append(all, l)
		}
	}
	return all, errors.Join(failed...)
}

// providerOf is the issuer with a provider, of those with one account, that serves other names
// of a zone; else the first with one, if there is any.
func (o *Operator) providerOf(p managed.Plan[Issuer], names []string, account *acmepersist.Issuer, zone string, issuers []*acmepersist.Issuer) *acmepersist.Issuer {
	can := func(iss *acmepersist.Issuer) bool {
		return iss.Publishing != nil && accountOf(iss) == accountOf(account)
	}
	for _, name := range names {
		within := strings.TrimPrefix(name, "*.")
		if within != zone && !strings.HasSuffix(within, "."+zone) {
			continue
		}
		for _, other := range p.Serving(name) {
			if active, err := other.ACME(); err == nil && can(active) {
				return active
			}
		}
	}
	if i := slices.IndexFunc(issuers, can); i >= 0 {
		return issuers[i]
	}
	return nil
}
