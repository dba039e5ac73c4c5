package acmepersist

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/publish"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

// Inventory is what was written into zones for this CA.
func (iss *Issuer) Inventory() *publish.Inventory {
	return &publish.Inventory{Storage: iss.Storage, Folder: newStore(iss.Storage, iss.CA).key("published")}
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
	if err := c.session.endWrites(ctx, p, c.Checker, c.Target); err != nil {
		return Published{}, err
	}
	var err error
	done, putErr := c.session.writing(p, c.Checker, c.Target).put(ctx, false, func(values []string) string {
		result := record.Evaluate(values, w.want, time.Now())
		if result.Good() {
			return ""
		}
		if err = c.session.refine(&w, values, c.state, c.offer); err != nil {
			return ""
		}
		return p.Lasting(w.record.Value, time.Now())
	})
	return done, errors.Join(putErr, err)
}

// Unpublish removes one value of the inventory from the validation name.
func (c *Check) Unpublish(ctx context.Context, p *Publishing, value string) (publish.Removed, error) {
	return c.session.writing(p, c.Checker, c.Target).remove(ctx, value, nil)
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
	if round.Mode == propagation.ModeRecursive {
		return publish.Standing{}, errors.New("check is recursive, and resolvers tell neither the zone nor what each of its servers has: publish where the name servers can be asked")
	}
	s := publish.Standing{Zone: round.Zone}
	for _, r := range round.Servers {
		if r.Alias != "" {
			return s, fmt.Errorf("%s is an alias (CNAME) of %s: publish at that name, with the provider of its zone", name, r.Alias)
		}
		if r.Verdict == propagation.VerdictYes || r.Verdict == propagation.VerdictNo {
			s.Servers = append(s.Servers, r.Values)
			s.TTL = max(s.TTL, time.Duration(r.TTL)*time.Second)
		}
	}
	if len(s.Servers) == 0 {
		return s, fmt.Errorf("none of the %d name servers of %s answers", len(round.Servers), round.Zone)
	}
	return s, nil
}
