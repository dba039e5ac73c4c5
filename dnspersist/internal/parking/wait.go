package parking

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/fair"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
	"github.com/dnspersist/caddy-dnspersist/internal/walltime"
)

// Attempt is an attempt for a domain that is under way.
type Attempt struct {
	// Seen is what the watch has shown last, for acmepersist.Request; nil if that is too old.
	Seen *propagation.Report

	registry *Registry
	owner    Owner
	domain   string
	ca       string // of the configuration, if the domain is managed
	entry    *entry // the one that waited when it began
	phase    acmepersist.Phase
	since    time.Time
}

// Begin is for an attempt that comes for a domain. The error is the one to answer with where the
// domain has to wait, which costs no query, no storage and no request; else Settle ends the attempt.
func (r *Registry) Begin(ctx context.Context, o Owner, domain string) (*Attempt, error) {
	a := &Attempt{registry: r, owner: o, domain: domain, phase: acmepersist.PhaseLooking, since: time.Now()}
	a.ca, _ = o.Configuration().CA(domain) // who asks first has it worked out, which may take its time
	r.mu.Lock()
	defer r.unlock()
	if e := r.entries[keyOf(o, domain)]; e != nil && e.isHeld {
		var err error
		if a.Seen, err = e.answer(ctx, o); err != nil {
			return nil, err
		}
		a.entry = e
		e.atWork++
	}
	r.attempts[domain] = append(r.attempts[domain], a)
	r.changed(domain)
	return a, nil
}

// answer is what an attempt for a domain that waits is answered with: an error, or the last report.
func (e *entry) answer(ctx context.Context, o Owner) (*propagation.Report, error) {
	isNew := !o.Configuration().ended && (!slices.Contains(e.owners, o) || e.adopted == o)
	e.own(o)
	e.adopted = nil
	now := time.Now()
	e.noteInterest(ctx, now)
	switch {
	case isNew && e.stopWatch == nil && !isLimit(e.hold.Reason):
		// the wait is not for DNS or a limit of the CA but for somebody to act, and a reload may be just that
		return nil, nil
	case now.Before(e.failedUntil):
		return nil, e.failure
	case e.readyAt.IsZero() && e.retryAt.After(walltime.Now()):
		return nil, e.hold
	case e.hold.Watch == nil:
		return nil, nil
	}
	report := e.report()
	if report.Status == propagation.StatusReady && now.Sub(cmp.Or(e.readyAt, report.When)) >= acmepersist.ReportFresh {
		return nil, nil
	}
	return &report, nil // of one that is not ready it counts since when it is partly there
}

// isLimit reports whether it is how much a CA bears, or allows, that is waited for: no reload changes that.
func isLimit(reason acmepersist.Reason) bool {
	switch reason {
	case acmepersist.ReasonRateLimited, acmepersist.ReasonBudget, acmepersist.ReasonQueued:
		return true
	}
	return false
}

// Progress notes what the attempt is at.
func (a *Attempt) Progress(p acmepersist.Phase) {
	r := a.registry
	r.mu.Lock()
	defer r.unlock()
	if a.phase = p; p == acmepersist.PhaseOrdering && a.entry != nil {
		a.entry.leaveLine()
	}
	r.changed(a.domain)
}

// Settle ends the attempt with what came of it. It reports whether the registry sees to the domain from
// now on: CertMagic, which would hold its job and the lock while it waits, must not try it again. Only
// the first call counts.
func (a *Attempt) Settle(ctx context.Context, err error) (isHeld bool) {
	r := a.registry
	r.mu.Lock()
	defer r.unlock()
	others := slices.DeleteFunc(slices.Clone(r.attempts[a.domain]), func(other *Attempt) bool { return other == a })
	if len(others) == len(r.attempts[a.domain]) {
		return false // it has ended
	}
	if r.attempts[a.domain] = others; len(others) == 0 {
		delete(r.attempts, a.domain)
	}
	if a.entry != nil {
		a.entry.atWork--
	}
	defer r.changed(a.domain)
	var hold *acmepersist.Hold
	switch {
	case err == nil:
		r.obtained(a.owner, a.domain)
		return false
	case errors.As(err, &hold):
		r.settle(ctx, a.owner, hold)
		return a.owner.IsAlone()
	}
	return a.owner.IsAlone() && !IsCutShort(ctx) && r.failed(a.owner, a.domain, err)
}

// obtained ends what was waited for, and asked for, of a domain that has its certificate.
func (r *Registry) obtained(o Owner, domain string) {
	for _, l := range r.looked {
		delete(l.faults, domain) // the CA has found the record
	}
	key := keyOf(o, domain)
	for _, e := range slices.Clone(r.byDomain[domain]) {
		if e.key == key || !e.isHeld {
			e.remove()
		}
	}
}

// settle has a domain wait.
func (r *Registry) settle(ctx context.Context, o Owner, hold *acmepersist.Hold) {
	c := o.Configuration()
	if r.closed || c.ended || o.IsOnDemand() && !o.IsAlone() {
		return // of those on demand in a chain nothing would end what is noted of them
	}
	key, now := keyOf(o, hold.Domain), time.Now()
	e := r.entries[key]
	if e == nil {
		e = &entry{registry: r, key: key, domain: hold.Domain, isHeld: o.IsAlone(), hold: hold, since: now}
		if o.IsOnDemand() && !e.invite(o) {
			return
		}
		r.entries[key] = e
		r.waiting.Store(key, nil)
		r.byDomain[e.domain] = append(r.byDomain[e.domain], e)
	}
	e.own(o)
	e.noteInterest(ctx, now)
	before := e.hold
	if hold.Reason == acmepersist.ReasonCADown && before.Watch != nil {
		// the record is what it was, and is watched and asked for meanwhile
		down := *hold
		down.Record, down.Also, down.Watch, down.Answer = before.Record, before.Also, before.Watch, before.Answer
		hold = &down
	}
	e.hold, e.heir = hold, nil
	if before.GiveUp != nil && before != hold { // it waits for something else, or has another place
		r.later(before.GiveUp)
	}
	isNewer := hold.Watch != nil && before.Watch != nil && before.Record == hold.Record && before.Watch.Report.When.After(hold.Watch.Report.When)
	if isNewer { // the watch has looked since the attempt did
		e.hold = hold.Seen(before.Watch.Report)
	}
	report := e.report()
	e.sees(report)
	finding := found(e.hold, report)
	e.code = string(finding.Code)
	if kind := e.news.take(report, finding, now); kind == newsWrong { // the rest is what it waits for now
		e.logNews(kind, report, finding)
	}
	if e.asked != nil && hold.Record != (acmepersist.Record{}) && e.asked.Record != hold.Record {
		r.announcements.remove(e)
	}
	switch {
	case hold.Watch == nil && hold.Reason == acmepersist.ReasonCADown: // what DNS shows is not known
	case hold.Watch == nil, report.Status == propagation.StatusReady: // nobody has to publish it
		r.announcements.remove(e)
	case report.Status == propagation.StatusAbsent: // where DNS does not answer, nobody knows whether it is missing
		r.announcements.add(e)
	case e.asked != nil: // one that some servers already show is on its way
		e.asked = e.hold
	}
	if !e.isHeld {
		return
	}
	e.wait(o)
	e.logWait(now, hasEntryOfItsOwn(e))
	if isNewer && report.Status == propagation.StatusReady {
		e.readyAt = now
		e.tryAt(walltime.Now(), "the record has become complete meanwhile") // CertMagic's job ends first
	}
}

// hasEntryOfItsOwn reports whether the log has why the domain waits without a further entry.
func hasEntryOfItsOwn(e *entry) bool {
	switch e.hold.Reason {
	case acmepersist.ReasonAbsent, acmepersist.ReasonWrong: // the record is announced
		return true
	case acmepersist.ReasonPublish: // whoever has tried to publish it has logged why
		return !e.isOnDemand()
	}
	return false
}

// wait has an entry watched and retried.
func (e *entry) wait(o Owner) {
	r := e.registry
	e.readyAt, e.busyUntil = time.Time{}, time.Time{}
	e.failures, e.failure, e.failedUntil = 0, nil, time.Time{}
	e.leaveLine() // the retry that has come to this may still be ending when the next one begins
	at := walltime.Now().Add(cmp.Or(o.Configuration().Timing.Retry, acmepersist.HeldAtMost))
	if until := e.hold.Until; !until.IsZero() && until.Before(at) {
		at = until
	}
	e.tryAt(at, "it is time to try again whatever DNS shows")
	if w := e.hold.Watch; w != nil {
		// the same key goes on with the same schedule
		e.stopWatch = r.scheduler.Watch(e.key, w.Checker, w.Target, w.Gate, func(report propagation.Report) { e.observed(report) })
	} else {
		e.unwatch()
	}
	if hold := e.hold; hold.OnTurn != nil {
		// whoever calls may have a lock of its own, under which the registry is never called
		r.later(func() { hold.OnTurn(func() { e.called(hold) }) })
	}
}

// invite makes room for a domain that is asked for on demand. It reports whether there is any.
func (e *entry) invite(o Owner) bool {
	r := e.registry
	c := o.Configuration()
	domain := fair.Domain(record.Base(e.domain))
	e.guest = &guest{domain: domain, interest: time.Now()}
	leaves, ok := r.guests.room(domain, !c.Names(domain), c.Limits, time.Now())
	if !ok {
		r.log(func(l *zap.Logger) {
			l.Debug("too many names that were asked for on demand wait for their records; this one is not watched, and looked at again when it is asked for",
				zap.String("domain", e.domain), zap.String("registered_domain", domain))
		})
		return false
	}
	if leaves != nil {
		leaves.remove()
	}
	r.guests.add(e)
	return true
}

// failed has a domain that waits tried again after an error that is not a Hold. It reports whether the
// domain waits: while CertMagic waits to do so itself, a second job would begin beside it.
func (r *Registry) failed(o Owner, domain string, err error) bool {
	e := r.entries[keyOf(o, domain)]
	if e == nil {
		return false
	}
	e.fail(err)
	return true
}

// fail has a domain wait after an error, whatever DNS shows meanwhile.
func (e *entry) fail(err error) {
	now := time.Now()
	e.failures++
	e.failure, e.readyAt = err, time.Time{}
	e.failedUntil = now.Add(AfterFailures(e.failures, e.hold.NotAfter, now))
	e.tryAt(e.failedUntil, "it is time to try again after a failure")
}

// observed takes the report of a poll.
func (e *entry) observed(report propagation.Report) {
	r := e.registry
	r.mu.Lock()
	defer r.unlock()
	if r.entries[e.key] != e || e.hold.Watch == nil {
		return
	}
	finding := found(e.hold, report)
	onDemand := e.isOnDemand()
	kind := e.news.take(report, finding, time.Now())
	isGone := e.report().Status != report.Status && report.Status == propagation.StatusAbsent
	e.hold, e.code = e.hold.Seen(report), string(finding.Code)
	e.sees(report)
	e.logNews(kind, report, finding)
	for _, fault := range r.faults.news(report, time.Now()) {
		r.log(func(l *zap.Logger) { writeFault(l, fault, report.Zone, onDemand) })
	}
	switch {
	case isGone && e.newest() != nil:
		r.announcements.add(e) // when the wait began some servers had it, or none was heard, so it was not announced
	case report.Status == propagation.StatusReady:
		r.announcements.remove(e)
	case e.asked != nil:
		e.asked = e.hold
	}
	if e.isHeld && e.news.count <= newsMost {
		e.logWait(time.Now(), e.hold.Reason != acmepersist.ReasonBlocked)
	}
	now := walltime.Now()
	at, why := e.hold.Due(report, now)
	isDue := !at.IsZero() && !at.After(now)
	isReady := report.Status == propagation.StatusReady
	if e.readyAt = (time.Time{}); isDue && isReady {
		e.readyAt = time.Now()
	}
	switch {
	case isDue:
		if !isReady {
			e.retryAt = time.Time{}
		}
		r.later(func() { e.retry(why, zapcore.InfoLevel) })
	case !at.IsZero() && at.Before(e.retryAt):
		e.tryAt(at, why)
	}
	r.changed(e.domain)
}

// found explains what a report shows that is not the record.
func found(h *acmepersist.Hold, report propagation.Report) acmepersist.Finding {
	if h.Watch == nil || h.Watch.Find == nil {
		return acmepersist.Finding{}
	}
	return h.Watch.Find(report)
}

// Limits bound what domains of on-demand TLS cost: whoever opens a connection chooses them, as far as
// the permission (`ask`) lets them.
type Limits struct {
	// MaxWaiting is how many may wait, MaxWaitingPerDomain how many of one registered domain.
	MaxWaiting, MaxWaitingPerDomain int
	// ForgetAfter is how long one of which no record was ever seen is watched without a handshake.
	ForgetAfter time.Duration
}

// guest is what is known of a domain that waits and was asked for on demand.
type guest struct {
	domain string // the registered one
	// interest is when somebody last asked for it.
	interest time.Time
	// hasOwner is true once something was seen that only the domain's owner can set.
	hasOwner bool
}

// noteInterest notes that somebody asks for the domain now, unless the attempt is our own.
func (e *entry) noteInterest(ctx context.Context, now time.Time) {
	if e.guest != nil && !acmepersist.IsInBackground(ctx) {
		e.guest.interest = now
	}
}

// sees takes from a report whether the owner of the domain has done anything.
func (e *entry) sees(report propagation.Report) {
	if e.guest == nil || e.guest.hasOwner {
		return
	}
	e.guest.hasOwner = e.hold.Reason == acmepersist.ReasonQueued || // its record is complete
		slices.ContainsFunc(report.Servers, func(s propagation.ServerReport) bool { return s.Verdict == propagation.VerdictYes })
}

// mayGo reports whether the watch may be given up: not that of a domain whose owner has done
// something, or that has a certificate to lose.
func (e *entry) mayGo() bool { return e.guest != nil && !e.guest.hasOwner && e.hold.NotAfter.IsZero() }

// forgetAt is when a domain is watched no longer that nobody asks for; zero for never.
func (e *entry) forgetAt() time.Time {
	o := e.newest()
	if o == nil || !e.mayGo() {
		return time.Time{}
	}
	return e.guest.interest.Add(o.Configuration().Limits.ForgetAfter)
}

// guests are the domains that wait and were asked for on demand, by registered domain.
type guests struct {
	count   int
	domains map[string]map[*entry]bool
}

func (g *guests) add(e *entry) {
	if g.domains == nil {
		g.domains = make(map[string]map[*entry]bool)
	}
	in := g.domains[e.guest.domain]
	if in == nil {
		in = make(map[*entry]bool)
		g.domains[e.guest.domain] = in
	}
	in[e] = true
	g.count++
}

func (g *guests) remove(e *entry) {
	if e.guest == nil || !g.domains[e.guest.domain][e] {
		return
	}
	g.count--
	delete(g.domains[e.guest.domain], e)
	if len(g.domains[e.guest.domain]) == 0 {
		delete(g.domains, e.guest.domain)
	}
}

// room reports whether another name of a domain may wait, and which one has to go for it, if any.
// A domain that is bounded makes room itself; else the one that has the most does.
func (g *guests) room(domain string, bounded bool, limits Limits, now time.Time) (leaves *entry, ok bool) {
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

// leastWanted is the name of a domain that nobody has asked for the longest, of those that may go.
func (g *guests) leastWanted(domain string, now time.Time) (least *entry) {
	for e := range g.domains[domain] {
		if e.mayGo() && !e.isBusy(now) && (least == nil || e.guest.interest.Before(least.guest.interest)) {
			least = e
		}
	}
	return least
}
