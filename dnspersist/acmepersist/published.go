package acmepersist

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/publish"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

// Inventory is what was written into zones for this CA.
func (iss *Issuer) Inventory() *publish.Inventory {
	return &publish.Inventory{Store: iss.store().Store}
}

// Inventory is that of the check's CA.
func (c *Check) Inventory() *publish.Inventory { return c.session.iss.Inventory() }

// Account is the URL of the account that the check is for.
func (c *Check) Account() string { return c.session.account.Location }

// Publish adds the value that is missing at the validation name, if one is, whatever the
// mode. It keeps other nodes and commands away meanwhile.
func (c *Check) Publish(ctx context.Context, p *Publishing) (Published, error) {
	w := c.wanted
	if c.Checker == nil {
		return Published{}, errors.New("check is none: publishing needs to see what stands")
	}
	if c.session.iss.Delegation != nil {
		if err := c.session.follow(ctx, c.Checker, &w, c.Checker.Check(ctx, c.Target, c.Checker.NewGate())); err != nil {
			return Published{}, err
		}
		if err := c.session.claim(ctx, c.Checker, &w); err != nil {
			return Published{}, err
		}
	}
	at, err := c.session.place(w, c.Target)
	if err != nil {
		return Published{}, err
	}
	if err := c.session.endWrites(ctx, p, c.Checker, at); err != nil {
		return Published{}, err
	}
	done, putErr := c.session.writing(p, c.Checker, at).put(ctx, false, func(values []string) string {
		if c.session.serves(w, values) {
			return ""
		}
		if err = c.session.refine(&w, values, c.known, c.offer); err != nil {
			return ""
		}
		return p.Lasting(w.record.Value, time.Now())
	})
	return done, errors.Join(putErr, err)
}

// serves reports whether one of the values is good, also for those who share the place.
func (s *session) serves(w wanted, values []string) bool {
	want := w.want
	for _, v := range record.Evaluate(values, want, time.Now()).Verdicts {
		if v.Outlook == record.OutlookGood && (!w.any || w.terms.dialect != record.DialectHashed || want.ServesAnyDomain(v.Value)) {
			return true
		}
	}
	return false
}

// Place is the name at which the record is written: the validation name, or where it is
// known to be delegated to.
func (c *Check) Place() string { return c.wanted.record.Place() }

// Unpublish removes one value of the inventory from the place of the name.
func (c *Check) Unpublish(ctx context.Context, p *Publishing, value string) (publish.Removed, error) {
	at, err := c.session.place(c.wanted, c.Target)
	if err != nil {
		return publish.Removed{}, err
	}
	return c.session.writing(p, c.Checker, at).remove(ctx, value, nil)
}

// Configured is the publishing of the issuer's configuration, nil if it has no provider.
func (c *Check) Configured() *Publishing { return c.session.iss.Publishing }

func standing(ctx context.Context, checker *propagation.Checker, t propagation.Target, name string) (publish.Standing, error) {
	if name != t.Name {
		return publish.Standing{}, fmt.Errorf("asking for %s: this is about %s", name, t.Name)
	}
	round := checker.Look(ctx, t)
	if round.Err != nil {
		return publish.Standing{}, round.Err
	}
	if err := round.Whole(); err != nil {
		return publish.Standing{}, err
	}
	if round.Mode == propagation.ModeRecursive {
		return publish.Standing{}, errors.New("check is recursive, and resolvers tell neither the zone nor what each of its servers has: publish where the name servers can be asked")
	}
	alias := round.Alias()
	switch alias.Kind {
	case propagation.AliasNotAgreed:
		return publish.Standing{}, &propagation.AliasError{Alias: alias}
	case propagation.AliasSet:
		return publish.Standing{}, fmt.Errorf("%s is an alias (CNAME) of %s: publish at that name, with the provider of its zone; if it is yours, say so by delegate_to or dns_challenge_override_domain", name, alias.Targets[0])
	}
	shown := round.At(t.Name)
	s := publish.Standing{Zone: shown.Zone, TTL: time.Duration(shown.TTL) * time.Second}
	for _, r := range shown.Servers {
		s.Servers = append(s.Servers, publish.Server{Address: r.Host + " " + r.Addr, Values: r.Values})
	}
	if len(s.Servers) == 0 {
		return s, fmt.Errorf("none of the %d name servers of %s answers", len(round.Servers), round.Zone)
	}
	return s, checker.ConfirmZone(ctx, shown)
}
