package acmepersist

import (
	"context"
	"fmt"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

// Asked is the CA's own word on a name.
type Asked struct {
	Identifier string `json:"identifier"`
	CA         string `json:"ca"`
	// Valid is true if the CA has accepted the name. Earlier says that it had done so
	// before, and looked at no record now.
	Valid   bool `json:"valid"`
	Earlier bool `json:"earlier,omitempty"`
	// Until is when its authorization ends.
	Until time.Time `json:"until,omitzero"`
	// Error is what it said if it has not.
	Error string `json:"error,omitempty"`
}

// Ask lets the CA validate one name: one order, that is not finalized. It is kept, so that
// the certificate, if one is due, costs no further one. Whatever DNS shows the CA is asked,
// and its no counts as every other. An error means that it could not be asked.
func (iss *Issuer) Ask(ctx context.Context, name string) (Asked, error) {
	id, err := record.Normalize(name)
	if err != nil {
		return Asked{}, &UnsupportedNameError{name, err}
	}
	said := Asked{Identifier: id, CA: iss.CA}
	s, o, _, err := iss.openToTell(ctx)
	if err != nil {
		return said, err
	}
	a := &attempt{session: s, name: id, offer: o}
	order, err := a.order(ctx, a.name)
	if err != nil {
		return said, err
	}
	authzs, err := a.authorizations(ctx, order)
	if err != nil {
		return said, err
	}
	for _, authz := range authzs {
		if authz.Status == acme.StatusValid {
			said.Valid, said.Earlier, said.Until = true, true, authz.Expires
			continue
		}
		if said.Earlier = false; authz.Status != acme.StatusPending {
			return said, fmt.Errorf("asking the CA about %s: the authorization is %s; try again, another order will be made", id, authz.Status)
		}
		c, ok, err := a.Challenge(ctx, authz, a.account.Identity)
		if err != nil {
			return said, err
		}
		if !ok {
			return said, a.refusedByCA(ctx, a.name)
		}
		if a.want, err = s.want(ctx, id, c.Terms); err != nil {
			return said, err
		}
		a.worked = true
		if iss.Checker != nil {
			gate := propagation.NewGate(iss.Grace, iss.Settle)
			a.seen, a.looked = gate.Observe(iss.Checker.Look(ctx, s.target(a.want, state.Name{}))), true
		}
		if err := a.validate(ctx, authz, c, false); err != nil {
			if !refused(err) {
				return said, err
			}
			said.Error = err.Error()
			// the order is of no more use
			return said, a.store.Remove(ctx, a.store.OrderKey(a.name))
		}
		said.Valid = true
		if fresh, err := a.readAuthorization(ctx, authz.Location); err == nil {
			said.Until = fresh.Expires
		}
	}
	return said, nil
}
