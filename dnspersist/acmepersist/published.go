package acmepersist

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/publish"
)

// Inventory is what was written into zones for this CA.
func (iss *Issuer) Inventory() *publish.Inventory {
	return &publish.Inventory{Storage: iss.Storage, Folder: newStore(iss.Storage, iss.CA).key("published")}
}

// Inventory is that of the check's CA.
func (c *Check) Inventory() *publish.Inventory { return c.session.iss.Inventory() }

// Account is the URL of the account that the check is for.
func (c *Check) Account() string { return c.session.account.Location }

// Thumbprint is that of the account's key.
func (c *Check) Thumbprint() string { return c.session.thumbprint }

// Standing asks the authoritative servers what stands at the validation name, for a
// publish.Writer. Where they do not tell, or the name is an alias, it is an error: nothing
// can be written there.
func (c *Check) Standing(ctx context.Context, name string) (publish.Standing, error) {
	if name != c.Name() {
		return publish.Standing{}, fmt.Errorf("asking for %s: this is the check of %s", name, c.Name())
	}
	round := c.Checker.Look(ctx, c.Target)
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
