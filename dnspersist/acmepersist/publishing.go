package acmepersist

import (
	"cmp"
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/ca"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/fair"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/publish"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

// What an issuer with a DNS provider does by itself.
const (
	// PublishNever leaves the provider to commands.
	PublishNever = publish.Never
	// PublishOnce writes a record that is missing, once for each name.
	PublishOnce = publish.Once
	// PublishKeep keeps records right as well: written again, renewed, followed.
	PublishKeep = publish.Keep
)

type (
	// Publishing writes records through the DNS provider of their zones.
	Publishing = publish.Options
	// ShadowingError means that a record at the validation name would take the name from a
	// wildcard record that answers for it today.
	ShadowingError = publish.ShadowingError
)

// Inventory is what was written into zones for this CA.
func (iss *Issuer) Inventory() *publish.Inventory {
	return &publish.Inventory{Store: iss.ca.Store}
}

// keeper changes the records of the bound account. p is nil where it only reads.
func (s *session) keeper(p *Publishing, checker *propagation.Checker) *publish.Keeper {
	process := &s.iss.process
	if p != nil {
		process = cmp.Or(p.Process, process)
	}
	k := publish.Keeper{Options: p, Store: s.store, Checker: checker, Process: process, Logger: s.logger}
	id := s.account.Identity
	return k.For(publish.Identity{CA: s.iss.CA, Account: id.URL, Thumbprint: id.Thumbprint, Earlier: id.EarlierThumbprints})
}

// publishMissing writes the record of a name that no server has. The CA has confirmed the account.
func (w *siteSession) publishMissing(ctx context.Context, values []string, o ca.Offer) error {
	if err := w.Claim(ctx, w.iss.Checker); err != nil {
		return err
	}
	if err := w.Refine(values, o); err != nil {
		return err
	}
	at, err := w.Place()
	if err != nil {
		return err
	}
	p := w.iss.Publishing
	write := publish.Write{
		At: at, Once: p.Mode == PublishOnce, OnDemand: w.iss.OnDemand, Handshake: w.iss.OnDemand && !IsInBackground(ctx),
		Value: func(values []string) (string, error) {
			// one that is good may have come meanwhile
			if good, _ := at.Accept(values); good {
				return "", nil
			}
			return p.Lasting(w.Record.Value, time.Now()), nil
		},
	}
	if w.iss.OnDemand {
		write.Bounds = &publish.Bounds{Domain: fair.Domain(record.Base(w.Identifier)), PerHour: w.iss.WritesPerHour, MaxRecords: w.iss.MaxRecords}
	}
	return w.keeper(p, w.iss.Checker).Try(ctx, write)
}

// endWrites ends writes and removals of earlier attempts that were cut short, and notes that a record which
// was written on demand is wanted.
func (w *siteSession) endWrites(ctx context.Context) error {
	at, err := w.Place()
	if err != nil {
		return err
	}
	keeper := w.keeper(w.iss.Publishing, w.iss.Checker)
	if err := keeper.Finish(ctx, at); err != nil {
		w.logger.Warn("a write that was cut short could not be ended; this is tried again with the next attempt",
			zap.String("name", at.Name), zap.Error(err))
	}
	if w.iss.OnDemand {
		return keeper.NoteInterest(ctx, at)
	}
	return nil
}

// keepAt keeps a name's record right, where it is published: one that is gone, ends, or is not what the
// configuration and the CA want now is followed by another one first, and removed once that one is in use.
// What is published and is better than it has to be stays.
func (w *siteSession) keep(ctx context.Context, r propagation.Report, life time.Duration) error {
	if w.Disputed != nil {
		return nil // a change is on its way
	}
	if err := w.Claim(ctx, w.iss.Checker); err != nil {
		return err
	}
	at, err := w.Place()
	if err != nil {
		return err
	}
	if w.Delegated != "" {
		// also while the owner's CNAME is missing: it is to find the record when it comes
		r = propagation.NewGate(w.iss.Grace, w.iss.Settle).Observe(w.iss.Checker.Look(ctx, at))
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	if r.Status == propagation.StatusBlocked || r.Status == propagation.StatusPartial {
		return nil // a change is on its way, or nothing is known
	}
	p := w.iss.Publishing
	keeper := w.keeper(p, w.iss.Checker)
	if err := keeper.Finish(ctx, at); err != nil {
		return err
	}
	need := w.need(life)
	if need.IsMet(r.Values, time.Now()) {
		return keeper.Retire(ctx, at, r.Values, need)
	}
	// the account check of section 4.5 comes before each write
	if err := w.account.Check(ctx); err != nil {
		return err
	}
	return keeper.Try(ctx, publish.Write{At: at, OnDemand: w.iss.OnDemand, Value: func(values []string) (string, error) {
		if now := time.Now(); !need.IsMet(values, now) {
			return p.Lasting(w.Record.Value, now), nil
		}
		return "", nil
	}})
}

// need is what a name needs of the values that are published for it.
func (w *siteSession) need(life time.Duration) publish.Need {
	n := publish.Need{Requirement: w.Want, AnyDomain: w.Any && w.Terms.Dialect == record.DialectHashed, Margin: w.margin(life)}
	n.Requirement.Wildcard = n.Requirement.Wildcard || w.Wide
	for _, a := range w.Known.Accepted {
		if a.Account == w.account.URL {
			n.Accepted = append(n.Accepted, a.Value)
		}
	}
	return n
}

// margin is how long before its end a record is followed: three renewals and a third of its
// life, but not most of that, for then a new one would be followed at once.
func (s *session) margin(life time.Duration) time.Duration {
	renewals := time.Duration(renewalsAhead * float64(life) * (1 - s.iss.RenewalWindowRatio))
	whole := s.iss.Publishing.PersistFor
	if whole <= 0 {
		return renewals
	}
	return min(max(renewals, whole/3), whole/3*2)
}

// Inventory is that of the check's CA.
func (c *Check) Inventory() *publish.Inventory { return c.session.iss.Inventory() }

// Account is the URL of the account that the check is for.
func (c *Check) Account() string { return c.session.account.URL }

// Configured is the publishing of the issuer's configuration, nil if it has no provider.
func (c *Check) Configured() *Publishing { return c.session.iss.Publishing }

// Place is the name at which the record is written: the validation name, or where it is
// known to be delegated to.
func (c *Check) Place() string { return c.site.Record.Place() }

// Publish adds the value that is missing at the validation name, if one is, whatever the
// mode. It keeps other nodes and commands away meanwhile. A dry run changes nothing.
func (c *Check) Publish(ctx context.Context, p *Publishing) (publish.Result, error) {
	w := c.site.clone()
	if c.session.iss.Delegation != nil {
		report := c.Checker.Check(ctx, c.Target, c.Checker.NewGate())
		var err error
		if p.DryRun {
			err = w.ApplyAlias(ctx, report)
		} else if err = w.Follow(ctx, c.Checker, report); err == nil {
			err = w.Claim(ctx, c.Checker)
		}
		if err != nil {
			return publish.Result{}, err
		}
	}
	at, err := w.Place()
	if err != nil {
		return publish.Result{}, err
	}
	keeper := c.session.keeper(p, c.Checker)
	if !p.DryRun {
		if err := keeper.Finish(ctx, at); err != nil {
			return publish.Result{}, err
		}
	}
	return keeper.Put(ctx, publish.Write{At: at, OnDemand: c.session.iss.OnDemand, Value: func(values []string) (string, error) {
		if w.serves(values) {
			return "", nil
		}
		err := w.Refine(values, c.offer)
		return p.Lasting(w.Record.Value, time.Now()), err
	}})
}

// serves reports whether one of the values is good, also for those who share the place.
func (w *siteSession) serves(values []string) bool {
	need := publish.Need{Requirement: w.Want, AnyDomain: w.Any && w.Terms.Dialect == record.DialectHashed}
	return need.IsMet(values, time.Now())
}

// Unpublish removes one value of the inventory from the place of the name.
func (c *Check) Unpublish(ctx context.Context, p *Publishing, value string) (publish.Removed, error) {
	at, err := c.site.Place()
	if err != nil {
		return publish.Removed{}, err
	}
	return c.session.keeper(p, c.Checker).Remove(ctx, at, value, nil)
}

// publishes reports whether records are written.
func publishes(p *Publishing) bool { return p != nil && p.Mode != PublishNever }

// keeps reports whether records are kept right.
func keeps(p *Publishing) bool { return p != nil && p.Mode == PublishKeep }
