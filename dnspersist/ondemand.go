package dnspersist

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddytls"
	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/fair"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

// OnDemand bounds what names of on-demand TLS cost: whoever opens a connection chooses them, as far as
// the permission (`ask`) lets them.
type OnDemand struct {
	// How many names may wait for their records. The one that nobody has asked for the longest,
	// of the registered domain that has the most, makes room for another. Default: 10000.
	MaxWaiting int `json:"max_waiting,omitempty"`

	// How many of them may be of one registered domain, such as `example.co.uk`. Registered
	// domains that the configuration names have no bound of their own. Default: 100.
	MaxWaitingPerDomain int `json:"max_waiting_per_domain,omitempty"`

	// How long a name of which no record was ever seen is watched without a handshake that
	// asks for it; the next one after that looks at once. Default: 24 hours.
	ForgetAfter caddy.Duration `json:"forget_after,omitempty"`

	// How many records may be written on demand in an hour for the names of one registered
	// domain. Default: 100.
	WritesPerHour int `json:"writes_per_hour,omitempty"`

	// How many names there may be with records of ours, for a CA, before none is written on
	// demand any more. Default: 50000.
	MaxRecords int `json:"max_records,omitempty"`

	// How long a record that was written on demand stays while its name has no certificate
	// and nobody asks for it; 2 days at least. Default: 30 days.
	RemoveAfter caddy.Duration `json:"remove_after,omitempty"`
}

// withDefaults fills in what is not configured; o may be nil.
func (o *OnDemand) withDefaults() OnDemand {
	all := OnDemand{
		MaxWaiting: 10_000, MaxWaitingPerDomain: 100, ForgetAfter: caddy.Duration(24 * time.Hour),
		WritesPerHour: 100, MaxRecords: 50_000, RemoveAfter: caddy.Duration(30 * 24 * time.Hour),
	}
	if o == nil {
		return all
	}
	for _, n := range []struct{ to, from *int }{
		{&all.MaxWaiting, &o.MaxWaiting},
		{&all.MaxWaitingPerDomain, &o.MaxWaitingPerDomain},
		{&all.WritesPerHour, &o.WritesPerHour},
		{&all.MaxRecords, &o.MaxRecords},
	} {
		if *n.from > 0 {
			*n.to = *n.from
		}
	}
	if o.ForgetAfter > 0 {
		all.ForgetAfter = o.ForgetAfter
	}
	if o.RemoveAfter > 0 {
		all.RemoveAfter = o.RemoveAfter
	}
	return all
}

// validate checks what is configured; o may be nil.
func (o *OnDemand) validate() error {
	if o == nil {
		return nil
	}
	var errs []error
	for name, n := range map[string]int64{
		"max_waiting": int64(o.MaxWaiting), "max_waiting_per_domain": int64(o.MaxWaitingPerDomain), "forget_after": int64(o.ForgetAfter),
		"writes_per_hour": int64(o.WritesPerHour), "max_records": int64(o.MaxRecords), "remove_after": int64(o.RemoveAfter),
	} {
		if n < 0 {
			errs = append(errs, fmt.Errorf("on_demand.%s is negative: leave it out for the default, or name what may be", name))
		}
	}
	if o.RemoveAfter > 0 && o.RemoveAfter < leastRemoveAfter {
		errs = append(errs, fmt.Errorf("on_demand.remove_after: %w", errRemoveAfter))
	}
	return errors.Join(errs...)
}

// leastRemoveAfter is the least that RemoveAfter may be: that a record is wanted is noted once a day.
const leastRemoveAfter = caddy.Duration(48 * time.Hour)

var errRemoveAfter = errors.New("it has to be 48h or more, for it is noted once a day that a record is still wanted")

// guest is what is known of a parked name that was asked for on demand. It is guarded by shared.mu.
type guest struct {
	domain string // the registered one
	// interest is when somebody last asked for it.
	interest time.Time
	// hasOwner is true once something was seen that only the domain's owner can set.
	hasOwner bool
}

// noteInterest says that somebody asks for the name now.
func (p *parked) noteInterest(now time.Time) {
	if p.guest != nil {
		p.guest.interest = now
	}
}

// sees takes from a report whether the owner of the domain has done anything.
func (p *parked) sees(r propagation.Report) {
	if p.guest == nil || p.guest.hasOwner {
		return
	}
	for _, s := range r.Servers {
		p.guest.hasOwner = p.guest.hasOwner || s.Verdict == propagation.VerdictYes
	}
}

// forgetAt is when a name is watched no longer that nobody asks for; zero for never.
func (p *parked) forgetAt() time.Time {
	o, owned := p.newest()
	if p.guest == nil || p.guest.hasOwner || !p.hold.NotAfter.IsZero() || !owned {
		return time.Time{}
	}
	return p.guest.interest.Add(time.Duration(o.iss.rt.app.onDemand.ForgetAfter))
}

// guests are the parked names that were asked for on demand, by registered domain.
type guests struct {
	count   int
	domains map[string]map[*parked]bool
}

func (g *guests) add(p *parked) {
	if g.domains == nil {
		g.domains = make(map[string]map[*parked]bool)
	}
	in := g.domains[p.guest.domain]
	if in == nil {
		in = make(map[*parked]bool)
		g.domains[p.guest.domain] = in
	}
	if !in[p] {
		in[p] = true
		g.count++
	}
}

func (g *guests) remove(p *parked) {
	if p.guest == nil || !g.domains[p.guest.domain][p] {
		return
	}
	g.count--
	delete(g.domains[p.guest.domain], p)
	if len(g.domains[p.guest.domain]) == 0 {
		delete(g.domains, p.guest.domain)
	}
}

// room reports whether another name of a domain may wait, and which one has to go for it, if any.
// A domain that is bounded makes room itself; else the one that has the most does.
func (g *guests) room(domain string, bounded bool, limits OnDemand, now time.Time) (leaves *parked, ok bool) {
	if bounded && len(g.domains[domain]) >= limits.MaxWaitingPerDomain {
		leaves = g.leastWanted(domain, now)
		return leaves, leaves != nil
	}
	if g.count < limits.MaxWaiting {
		return nil, true
	}
	most := 0
	for d, names := range g.domains {
		if len(names) > most {
			if least := g.leastWanted(d, now); least != nil {
				leaves, most = least, len(names)
			}
		}
	}
	return leaves, leaves != nil
}

// leastWanted is the name of a domain that nobody has asked for the longest, of those that may go: of
// one whose owner has done something, or that has a certificate to lose, the watch is not given up.
func (g *guests) leastWanted(domain string, now time.Time) (least *parked) {
	for p := range g.domains[domain] {
		if p.guest.hasOwner || !p.hold.NotAfter.IsZero() || p.isBusy(now) {
			continue
		}
		if least == nil || p.guest.interest.Before(least.guest.interest) {
			least = p
		}
	}
	return least
}

// names reports whether the configuration has a name of the registered domain. All apps are
// provisioned now.
func (a *App) names(domain string) bool {
	a.mu.Lock()
	known := a.namedDomains
	a.mu.Unlock()
	if known == nil {
		known = make(map[string]bool)
		plan := a.livePlan()
		for _, n := range append(plan.Names(), plan.Subjects()...) {
			if normal, err := record.Normalize(n); err == nil {
				known[fair.Domain(record.Base(normal))] = true
			}
		}
		a.mu.Lock()
		a.namedDomains = known
		a.mu.Unlock()
	}
	return known[domain]
}

// invite makes room for a name that is asked for on demand; it is called under the lock. end is to be
// called without it, if it is not nil.
func (s *shared) invite(p *parked, bounded bool, limits OnDemand) (end func(*shared), ok bool) {
	leaves, ok := s.guests.room(p.guest.domain, bounded, limits, time.Now())
	if !ok {
		return nil, false
	}
	if leaves != nil {
		s.unlist(leaves)
		end = leaves.end()
	}
	s.guests.add(p)
	return end, true
}

// unlist takes a name out of those that wait; it is called under the lock.
func (s *shared) unlist(p *parked) {
	if s.parked[p.key] == p {
		delete(s.parked, p.key)
	}
	s.guests.remove(p)
}

// arm has a name retried when its time has come, or forgotten; it is called under the lock.
func (s *shared) arm(p *parked, why string) {
	if p.timer != nil {
		p.timer.Stop()
	}
	at := p.due
	if forget := p.forgetAt(); !forget.IsZero() && forget.Before(at) {
		at = forget
	}
	p.timer = time.AfterFunc(max(time.Until(at), time.Second), func() { s.timeUp(p, why) })
}

// timeUp is what arm has set the timer for.
func (s *shared) timeUp(p *parked, why string) {
	s.mu.Lock()
	now := time.Now()
	switch forget := p.forgetAt(); {
	case s.parked[p.key] != p:
		s.mu.Unlock()
	case !forget.IsZero() && !now.Before(forget) && !p.isBusy(now):
		s.unlist(p)
		end, logger, interest := p.end(), s.logger, p.guest.interest
		s.mu.Unlock()
		end(s)
		logger.Debug("nobody has asked for the name for long, and no record of it was ever seen; not watching it any more",
			zap.String("identifier", p.identifier), zap.Duration("since", now.Sub(interest)))
	case now.Before(p.due):
		s.arm(p, why) // somebody has asked for it meanwhile
		s.mu.Unlock()
	case now.Before(p.freeAt(now)):
		// another timer would not come
		p.retry, p.due = time.Time{}, p.freeAt(now)
		s.arm(p, why)
		s.mu.Unlock()
	default:
		p.retry = time.Time{}
		s.mu.Unlock()
		s.handBack(p, why)
	}
}

// isRefusal reports whether an error of the permission module is its no. Any other says that it
// could not tell: a name that waits must not be lost to a time-out.
func isRefusal(err error) bool { return errors.Is(err, caddytls.ErrPermissionDenied) }

// hearPermission has a no of the permission end the watch of the name at once. The answer itself stays
// what it is.
func (iss *Issuer) hearPermission(cfg *certmagic.Config) {
	if cfg.OnDemand == nil || cfg.OnDemand.DecisionFunc == nil || cfg.OnDemand == iss.rt.heard {
		return
	}
	wrapped := *cfg.OnDemand
	decide := wrapped.DecisionFunc
	wrapped.DecisionFunc = func(ctx context.Context, name string) error {
		err := decide(ctx, name)
		if isRefusal(err) {
			iss.notPermitted(cfg, name, err)
		}
		return err
	}
	cfg.OnDemand = &wrapped
	iss.rt.heard = &wrapped
}

// notPermitted ends the watch of a name.
func (iss *Issuer) notPermitted(cfg *certmagic.Config, name string, err error) {
	k := &parker{iss: iss, cfg: cfg}
	s := iss.rt.app.shared
	s.mu.Lock()
	p := s.parked[k.key(name)]
	isGuest := p != nil && p.guest != nil
	s.mu.Unlock()
	if !isGuest {
		return
	}
	s.forget(p)
	iss.rt.logger.Debug("no longer permitted; not watching the name any more", zap.String("identifier", name), zap.Error(err))
}

// asksForIt reports whether an attempt is somebody's interest in the name, not our own.
func asksForIt(ctx context.Context) bool { return !acmepersist.IsInBackground(ctx) }

// removeEvery is how often records that were written on demand are looked through.
const removeEvery = 24 * time.Hour

// mayRemove reports whether it is time to look through the records of an account, and notes it.
func (s *shared) mayRemove(account string, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now.Sub(s.removals[account]) < removeEvery {
		return false
	}
	if s.removals == nil {
		s.removals = make(map[string]time.Time)
	}
	s.removals[account] = now
	return true
}
