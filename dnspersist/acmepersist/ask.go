package acmepersist

import (
	"context"
	"fmt"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/site"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
	"github.com/dnspersist/caddy-dnspersist/internal/walltime"
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
		return Asked{}, &site.UnsupportedNameError{Name: name, Err: err}
	}
	said := Asked{Identifier: id, CA: iss.CA}
	s, o, _, err := iss.openToTell(ctx)
	if err != nil {
		return said, err
	}
	a := &attempt{session: s, domain: id, offer: o, request: Request{Progress: func(Phase) {}}}
	a.facts = facts{order: new(orderFacts), looks: iss.Checker != nil, bound: true, confirmed: true}
	if a.facts.name, err = s.store.Name(ctx, record.Label+"."+record.Base(id)); err != nil {
		return said, err
	}
	if a.order, err = a.keptOrNewOrder(ctx, id); err != nil {
		return said, err
	}
	authzs, err := a.authorizations(ctx, a.order)
	if err != nil {
		return said, err
	}
	for _, a.authz = range authzs {
		switch a.authz.Status {
		case acme.StatusValid:
			said.Valid, said.Earlier, said.Until = true, true, a.authz.Expires
		case acme.StatusPending:
			err = a.askNow(ctx)
		default:
			err = fmt.Errorf("asking the CA about %s: the authorization is %s; try again, another order will be made", id, a.authz.Status)
		}
		switch {
		case err != nil:
			return said, err
		case a.refusal != nil:
			said.Error = a.refusal.Error()
		case !said.Earlier:
			said.Valid, said.Until = true, a.authz.Expires
		}
	}
	return said, nil
}

// askNow has a pending authorization validated, whatever DNS shows. A no of the CA is the attempt's refusal.
func (a *attempt) askNow(ctx context.Context) error {
	c, ok, err := a.Challenge(ctx, a.authz, a.account.Identity)
	if err != nil {
		return err
	}
	if !ok {
		return a.notOffered(ctx)
	}
	a.challenge = c
	if a.site, err = a.session.site(ctx, a.domain, c.Terms); err != nil {
		return err
	}
	if a.iss.Checker != nil {
		gate := propagation.NewGate(a.iss.Grace, a.iss.Settle)
		report := gate.Observe(a.iss.Checker.Look(ctx, a.site.Target()))
		a.facts.report = &report
	}
	if c.Status == acme.StatusPending {
		change := change{attempt: walltime.Now().UTC()}
		if err := a.note(ctx, change); err != nil {
			return err
		}
		if err := a.askToValidate(ctx, change.attempt); err != nil {
			return err
		}
	} else {
		a.taken, a.facts.order.postedAt = true, walltime.Now().UTC()
	}
	if err := a.awaitValidation(ctx); err != nil {
		return err
	}
	if a.facts.order.stage == orderProcessing {
		s, _ := decide(a.facts, walltime.Now())
		return a.holdAt(ctx, s)
	}
	return nil
}
