package dnspersist

import (
	"context"
	"crypto/x509"
	"errors"
	"slices"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/fair"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
	"github.com/dnspersist/caddy-dnspersist/internal/tuning"
	"github.com/dnspersist/caddy-dnspersist/internal/walltime"
)

// parked is a name whose certificate waits for its record, for one configuration
// of an issuer. Its fields are guarded by shared.mu.
type parked struct {
	key        string
	identifier string
	hold       *acmepersist.Hold
	report     propagation.Report
	news       news // what the log has of report
	// readyAt is when a watch last saw the record complete.
	readyAt time.Time
	// retry is when the name is retried whatever DNS shows; zero once that time has come.
	retry time.Time
	timer *time.Timer
	// due is when that is by the process's own time, which goes on over a change of the clock.
	due time.Time
	// busyUntil is while CertMagic works on the name at our bidding, and atWork counts the attempts
	// that have come to an issuer of ours, however long they take.
	busyUntil time.Time
	atWork    int
	// failures counts the attempts in a row that failed for another reason than DNS, and the
	// name is not retried before failedUntil.
	failures    int
	failedUntil time.Time
	// owners are the live configurations that want the name, the newest last.
	owners    []owner
	stopWatch func()
	// guest is set if the name was asked for on demand.
	guest *guest
}

// owner is one configuration's interest in a parked name.
type owner struct {
	iss *Issuer
	cfg *certmagic.Config
}

// end returns what is to be done, without shared.mu, to end the watch and the
// announcement of the name.
func (p *parked) end() func(*shared) {
	stop, identifier, record := p.stop(), p.identifier, p.hold.Record
	return func(s *shared) {
		stop()
		s.announcer.done(identifier, record)
	}
}

// stop is end without the announcement.
func (p *parked) stop() func() {
	timer, stopWatch := p.timer, p.stopWatch
	return func() {
		if timer != nil {
			timer.Stop()
		}
		if stopWatch != nil {
			stopWatch()
		}
	}
}

// freeAt is when the name may be retried: CertMagic would begin a second job beside one that is
// under way, and have it wait for the lock.
func (p *parked) freeAt(now time.Time) time.Time {
	at := p.failedUntil
	if p.busyUntil.After(at) {
		at = p.busyUntil
	}
	if next := now.Add(backgroundJob); p.atWork > 0 && next.After(at) {
		at = next
	}
	return at
}

// isBusy reports whether somebody works on the name.
func (p *parked) isBusy(now time.Time) bool { return now.Before(p.busyUntil) || p.atWork > 0 }

// own makes the configuration the newest owner. CertMagic's jobs of one that has ended may
// still come by: it would own the name for ever, for it ends only once. A name that a configuration
// manages is no guest any more: no handshake would bring it back.
func (p *parked) own(o owner) {
	if o.iss.rt.app.ended {
		return
	}
	p.owners = append(slices.DeleteFunc(p.owners, func(other owner) bool { return other.iss == o.iss }), o)
	if o.cfg.OnDemand == nil && p.guest != nil {
		o.iss.rt.app.shared.guests.remove(p)
		p.guest = nil
	}
}

// ownedBy reports whether the issuer has asked for the name before.
func (p *parked) ownedBy(iss *Issuer) bool {
	return slices.ContainsFunc(p.owners, func(o owner) bool { return o.iss == iss })
}

// newest returns the configuration through which the name is handed back, if one lives.
func (p *parked) newest() (owner, bool) {
	p.owners = slices.DeleteFunc(p.owners, func(o owner) bool { return o.iss.rt.app.ended })
	if len(p.owners) == 0 {
		return owner{}, false
	}
	return p.owners[len(p.owners)-1], true
}

// limited reports whether an error sets a time before which the CA must not be asked.
func limited(err error) bool {
	var (
		rate   *acmepersist.RateLimitedError
		budget *acmepersist.BudgetError
	)
	return errors.As(err, &rate) || errors.As(err, &budget)
}

// parker holds the domains of one issuer and CertMagic config.
type parker struct {
	iss *Issuer
	cfg *certmagic.Config
}

func (k *parker) key(identifier string) string {
	return k.iss.IssuerKey() + "|" + k.iss.rt.fingerprint + "|" + identifier
}

// obtain obtains the certificate of a domain, unless that has to wait.
func (k *parker) obtain(ctx context.Context, active *acmepersist.Issuer, csr *x509.CertificateRequest, domain string) (*certmagic.IssuedCertificate, error) {
	seen, err := k.Parked(ctx, domain)
	if err != nil {
		return nil, err
	}
	cert, err := active.Obtain(ctx, csr, acmepersist.Request{Seen: seen})
	var hold *acmepersist.Hold
	switch {
	case err == nil:
		k.Unpark(domain)
	case errors.As(err, &hold):
		k.Park(ctx, hold)
	}
	return cert, err
}

// Parked returns the error to answer with while a domain waits, which costs no query, no storage and
// no request; else the last report of the watch, if there is one.
func (k *parker) Parked(ctx context.Context, identifier string) (*propagation.Report, error) {
	s := k.iss.rt.app.shared
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.parked[k.key(identifier)]
	if p == nil || !alone(k.cfg) {
		// beside another issuer nothing waits: a name that was parked before a reload would be
		// handed back for ever, for the other one serves it. It is dropped with its owners.
		return nil, nil
	}
	known := k.iss.rt.app.ended || p.ownedBy(k.iss)
	p.own(owner{k.iss, k.cfg})
	now := time.Now()
	if asksForIt(ctx) {
		p.noteInterest(now)
	}
	switch {
	case !known && p.stopWatch == nil && !limited(p.hold.Err):
		// the wait is not for DNS but for somebody to act, and a reload may be just that
		return nil, nil
	case now.Before(p.failedUntil):
		return nil, p.hold
	case !p.readyAt.IsZero() && now.Sub(p.readyAt) < acmepersist.ReportFresh:
		report := p.report
		return &report, nil
	case !p.readyAt.IsZero():
		return nil, nil
	case !walltime.Now().Before(p.retry):
		// not ready, but since when it is partly there counts
		report := p.report
		return &report, nil
	default:
		return nil, p.hold
	}
}

// begins notes that an attempt for a name is under way, if the name is parked, until ends is called.
func (k *parker) begins(name string) (ends func()) {
	if k.cfg.OnDemand == nil {
		k.iss.rt.app.takesUp(name)
	}
	s := k.iss.rt.app.shared
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.parked[k.key(name)]
	if p == nil {
		return func() {}
	}
	p.atWork++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		p.atWork--
	}
}

// Park has a domain wait.
func (k *parker) Park(ctx context.Context, hold *acmepersist.Hold) {
	app := k.iss.rt.app
	s := app.shared
	waits, onDemand := hold.Watch != nil, k.cfg.OnDemand != nil
	domain, bounded := "", false
	if onDemand {
		domain = fair.Domain(record.Base(hold.Domain))
		bounded = !app.names(domain)
	}
	if onDemand && !alone(k.cfg) {
		return // anybody can ask for names, and nothing would end what is noted of them
	}
	if waits && (hold.Watch.Report.Status == propagation.StatusAbsent || hold.Watch.Report.Status == propagation.StatusBlocked) && s.lives(app) {
		// a record that some servers already show is on its way
		s.announcer.want(hold, app, onDemand)
	}
	if !alone(k.cfg) {
		return
	}
	key := k.key(hold.Domain)
	s.mu.Lock()
	if s.closed || app.ended {
		s.mu.Unlock()
		return
	}
	p := s.parked[key]
	var makeRoom func(*shared)
	if p == nil {
		p = &parked{key: key, identifier: hold.Domain}
		if onDemand {
			p.guest = &guest{domain: domain, interest: time.Now()}
			var ok bool
			if makeRoom, ok = s.invite(p, bounded, app.onDemand); !ok {
				logger := s.logger
				s.mu.Unlock()
				s.announcer.done(hold.Domain, hold.Record)
				logger.Debug("too many names that were asked for on demand wait for their records; this one is not watched, and looked at again when it is asked for",
					zap.String("identifier", hold.Domain), zap.String("domain", domain))
				return
			}
		}
		s.parked[key] = p
	}
	p.own(owner{k.iss, k.cfg})
	if asksForIt(ctx) {
		p.noteInterest(time.Now())
	}
	var report propagation.Report
	if waits {
		report = hold.Watch.Report
	}
	p.sees(report)
	var was acmepersist.Record
	if p.hold != nil {
		was = p.hold.Record
	}
	finding := found(hold, report)
	kind := p.news.take(report, finding, time.Now())
	if kind != newsWrong {
		kind = newsNone // the rest is in the error that the attempt ends with
	}
	p.hold, p.report, p.readyAt, p.busyUntil = hold, report, time.Time{}, time.Time{}
	p.failures, p.failedUntil = 0, time.Time{}
	at := walltime.Now().Add(tuning.Or(app.tuning.HandBack, acmepersist.HeldAtMost))
	if !hold.Until.IsZero() && hold.Until.Before(at) {
		at = hold.Until
	}
	s.tryAt(p, at, "it is time to try again whatever DNS shows")
	if waits {
		// the same key goes on with the same schedule
		p.stopWatch = s.scheduler.Watch(key, hold.Watch.Checker, hold.Watch.Target, hold.Watch.Gate, func(r propagation.Report) { s.observed(p, r) })
	}
	var stop func()
	if !waits {
		stop, p.stopWatch = p.stopWatch, nil
	}
	logger := s.logger
	s.mu.Unlock()
	if makeRoom != nil {
		makeRoom(s)
	}
	kind.write(logger, hold, report, finding, onDemand)
	if stop != nil {
		stop()
	}
	if was != hold.Record {
		s.announcer.done(hold.Domain, was) // nobody needs what it was
	}
	return
}

// Unpark is called when a domain has its certificate.
func (k *parker) Unpark(identifier string) {
	s := k.iss.rt.app.shared
	key := k.key(identifier)
	s.mu.Lock()
	p := s.parked[key]
	if p != nil {
		s.unlist(p)
	}
	end := func(s *shared) { s.announcer.got(identifier) }
	if p != nil {
		end = p.end()
	}
	s.mu.Unlock()
	end(s)
}

// observed takes the report of a poll.
func (s *shared) observed(p *parked, r propagation.Report) {
	s.mu.Lock()
	if s.parked[p.key] != p || p.hold.Watch == nil {
		s.mu.Unlock()
		return
	}
	finding := found(p.hold, r)
	kind := p.news.take(r, finding, time.Now())
	gone := p.report.Status != r.Status && r.Status == propagation.StatusAbsent
	p.report, p.hold = r, p.hold.Seen(r)
	p.sees(r)
	if r.Status == propagation.StatusReady {
		p.readyAt = time.Now()
	} else {
		p.readyAt = time.Time{}
	}
	now := walltime.Now()
	at, why := p.hold.Due(r, now)
	isDue := !at.IsZero() && !at.After(now)
	switch {
	case isDue && r.Status != propagation.StatusReady:
		p.retry = time.Time{}
	case !at.IsZero() && at.Before(p.retry):
		s.tryAt(p, at, why)
	}
	o, owned := p.newest()
	logger, hold, onDemand := s.logger, p.hold, owned && o.cfg.OnDemand != nil
	s.mu.Unlock()
	kind.write(logger, hold, r, finding, onDemand)
	s.faults.report(logger, r, onDemand)
	s.announcer.saw(hold.Record, r, finding)
	if gone && owned && s.lives(o.iss.rt.app) {
		// some servers had it when the wait began, so it was not announced
		s.announcer.want(hold, o.iss.rt.app, onDemand)
	}
	if isDue {
		s.handBack(p, why)
	}
}

// found explains what a report shows that is not the record.
func found(h *acmepersist.Hold, r propagation.Report) acmepersist.Finding {
	if h.Watch == nil || h.Watch.Find == nil {
		return acmepersist.Finding{}
	}
	return h.Watch.Find(r)
}
