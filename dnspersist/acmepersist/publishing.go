package acmepersist

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
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
		At: at, Once: p.Mode == PublishOnce, OnDemand: w.iss.OnDemand, Handshake: w.iss.OnDemand && !IsInBackground(ctx), Done: w.notePublished,
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
	if err := w.confirmAccount(ctx); err != nil {
		return err
	}
	return keeper.Try(ctx, publish.Write{At: at, OnDemand: w.iss.OnDemand, Done: w.notePublished, Value: func(values []string) (string, error) {
		if now := time.Now(); !need.IsMet(values, now) {
			return p.Lasting(w.Record.Value, now), nil
		}
		return "", nil
	}})
}

// notePublished passes on that a record was published.
func (w *siteSession) notePublished(done publish.Result) {
	n := w.newNotice(NoticePublished)
	n.Record, n.Zone, n.OnDemand = Record{Name: done.Name, Value: done.Value}, done.Zone, w.iss.OnDemand
	w.iss.Observer.Noticed(n)
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

// removalsAtOnce is how many records RemoveUnused removes: should it be wrong, somebody sees it
// in the log before much is gone.
const removalsAtOnce = 100

// Leftover is a value that was written for a name which needs no certificate any more.
type Leftover struct {
	publish.Entry
	session *session
	// by is the issuer whose provider removes it.
	by *Issuer
}

// By has the provider of another issuer with the same account remove the value, where several
// have one.
func (l *Leftover) By(iss *Issuer) { l.by = iss }

// Configured is the publishing of the issuer's configuration, nil if it has no provider.
func (l *Leftover) Configured() *Publishing { return l.by.Publishing }

// Unpublish removes the value, and forgets it.
func (l *Leftover) Unpublish(ctx context.Context, p *Publishing) (publish.Removed, error) {
	checker := l.session.iss.Checker
	if checker == nil {
		checker = propagation.NewChecker(propagation.Config{Grace: l.session.iss.Grace, Settle: l.session.iss.Settle, Logger: l.session.iss.Logger})
	}
	return l.session.keeper(p, checker).Remove(ctx, propagation.Target{Name: l.Name}, l.Value, nil)
}

// Leftovers lists what the inventory has at names that are neither managed nor have a
// certificate that is still valid (those of on-demand TLS are in no configuration). Only
// values for the bound account are among them. What cannot be read of the inventory is an error beside
// them.
func (iss *Issuer) Leftovers(ctx context.Context, managed []string) ([]*Leftover, error) {
	s, _, _, err := openToTell(ctx, iss)
	if err != nil {
		return nil, err
	}
	entries, unread := iss.Inventory().All(ctx)
	keeper, names := s.keeper(nil, nil), validationNames(managed)
	var all []*Leftover
	for _, e := range entries {
		if !keeper.Owns(e) {
			continue
		}
		switch domain, err := s.unneeded(ctx, e.Name, names); {
		case err != nil:
			return nil, err
		case domain != "":
			all = append(all, &Leftover{e, s, iss})
		}
	}
	return all, unread
}

// validationNames are those of identifiers, as a set.
func validationNames(identifiers []string) map[string]bool {
	names := make(map[string]bool)
	for _, id := range identifiers {
		if name, err := record.ValidationName(id); err == nil {
			names[name] = true
		}
	}
	return names
}

// unneeded returns a domain that the record at a name was written for, if none of its domains is managed or
// has a valid certificate; empty if one does, or if not all of them are known.
func (s *session) unneeded(ctx context.Context, name string, managed map[string]bool) (domain string, err error) {
	domains := []string{strings.TrimPrefix(name, record.Label+".")}
	if domains[0] == name { // the target of a delegation
		shared, err := s.store.Target(ctx, name)
		if err != nil || shared.More || shared.Incomplete || len(shared.Domains) == 0 {
			return "", err
		}
		domains = shared.Domains
	}
	for _, d := range domains {
		if managed[record.Label+"."+d] {
			return "", nil
		}
		if _, due := s.iss.certificateOf(ctx, []string{d, "*." + d}); !due.IsZero() {
			return "", nil
		}
	}
	return domains[0], nil
}

// RemoveUnused removes records that were written on demand, of names that are not managed and have no
// certificate, and that nobody has wanted for the given time, at any node. What it does not come to is
// left for the next time. A file of the inventory that cannot be read is an error that keeps only what it
// lists from being removed.
func (iss *Issuer) RemoveUnused(ctx context.Context, unusedFor time.Duration, managed []string) error {
	entries, unread := iss.Inventory().All(ctx)
	isUnused := func(e publish.Entry) bool { return e.OnDemand && e.UnusedFor(unusedFor, time.Now()) }
	entries = slices.DeleteFunc(entries, func(e publish.Entry) bool { return !isUnused(e) })
	if len(entries) == 0 {
		return unread
	}
	// those that cannot be removed must not keep the others from being come to
	rand.Shuffle(len(entries), func(i, j int) { entries[i], entries[j] = entries[j], entries[i] })
	s, err := openKnown(ctx, iss)
	if err != nil || s == nil {
		return errors.Join(unread, err)
	}
	keeper, names, serving, removed := s.keeper(nil, nil), validationNames(managed), servingBy(iss), 0
	for _, e := range entries {
		if !keeper.Owns(e) {
			continue
		}
		domain, err := s.unneeded(ctx, e.Name, names)
		if err != nil {
			return err
		}
		if domain == "" {
			continue
		}
		by := serving(domain)
		if by == nil || !publishes(by.Publishing) || by.Checker == nil {
			continue // a person may, by unpublish --stale
		}
		if removed++; removed > removalsAtOnce {
			break
		}
		if err := s.removeUnused(ctx, by, e, isUnused); err != nil {
			return err
		}
	}
	return unread
}

// removeUnused removes one record with the provider of an issuer, unless it is used meanwhile.
func (s *session) removeUnused(ctx context.Context, by *Issuer, e publish.Entry, isUnused func(publish.Entry) bool) error {
	inventory := s.iss.Inventory()
	done, err := s.keeper(by.Publishing, by.Checker).Remove(ctx, propagation.Target{Name: e.Name}, e.Value, func([]string) bool {
		known, err := inventory.At(ctx, e.Name)
		return err != nil || !slices.ContainsFunc(known, func(o publish.Entry) bool { return o.Value == e.Value && isUnused(o) })
	})
	if errors.Is(err, publish.ErrNeeded) {
		return nil
	}
	if err != nil {
		s.logger.Warn("a record that nobody wants any more could not be removed; this is tried again in a day",
			zap.String("name", e.Name), zap.String("ca", s.iss.CA), zap.Error(err))
		return nil
	}
	s.logger.Info("removed a record that was written on demand: its name has no certificate, and nobody has asked for it for long",
		zap.String("name", e.Name), zap.String("value", e.Value), zap.Time("wanted_at", e.WantedAt), zap.Bool("was_published", done.Gone), zap.String("ca", s.iss.CA))
	if strings.HasPrefix(e.Name, record.Label+".") {
		return nil
	}
	if left, err := inventory.At(ctx, e.Name); err != nil || len(left) > 0 {
		return nil //nolint:nilerr // it is not known that the target has no record
	}
	return s.store.ForgetTarget(ctx, e.Name)
}
