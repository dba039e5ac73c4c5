package dnspersist

import (
	"context"
	"errors"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
)

// Leftovers lists what was written at names for which nothing needs a record any more, for
// all CAs and accounts of the configuration.
func (o *Operator) Leftovers(ctx context.Context) ([]*acmepersist.Leftover, error) {
	managed := o.plan().managed()
	var all []*acmepersist.Leftover
	var seen []*acmepersist.Issuer
	err := o.each("", func(iss *acmepersist.Issuer) error {
		for _, other := range seen {
			if sameAccount(iss, other) {
				return nil // they have one inventory
			}
		}
		seen = append(seen, iss)
		some, err := iss.Leftovers(ctx, managed)
		if errors.Is(err, acmepersist.ErrNoAccount) {
			return nil
		}
		all = append(all, some...)
		return err
	})
	return all, err
}
