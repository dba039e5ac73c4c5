package acmepersist

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/ca"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
	"github.com/dnspersist/caddy-dnspersist/internal/walltime"
)

// Parker takes over names whose record does not stand yet, so that no job waits
// for DNS. A program without one waits inside Issue.
type Parker interface {
	// Parked is asked before anything else. It returns the error to answer with if
	// the name is parked and its time has not come; else the last report of the
	// watch, if there is one: with StatusReady it has seen the record complete just
	// now, and no further look is needed.
	Parked(ctx context.Context, identifier string) (watched *propagation.Report, err error)
	// Park watches the name and hands it back when the record is complete, and at
	// p.Retry whatever DNS shows. It returns the error for the attempt.
	Park(ctx context.Context, p Parking) error
	// Unpark is called when the name has its certificate.
	Unpark(identifier string)
}

// Parking is a name to be watched.
type Parking struct {
	Identifier string
	// Record is what has to be published.
	Record Record
	// Also is what other frontends of the CA may want to see, nil if they agree.
	Also *Record
	// CA and Account say for whom.
	CA, Account string
	// Checker, Target and Gate go on where Issue has stopped. Checker is nil where
	// the wait is not for DNS.
	Checker *propagation.Checker
	Target  propagation.Target
	Gate    *propagation.Gate
	Report  propagation.Report
	// Retry is when to hand the name back at the latest; zero for the Parker's own choice.
	Retry time.Time
	// NotAfter is the end of the certificate that is to be renewed, zero for a first one.
	NotAfter time.Time
	// Err is the error for the attempt.
	Err error
	// Find explains what DNS shows where none of it is the record. Nil where the wait is not
	// for DNS.
	Find func(propagation.Report) Finding
	// Again reports whether DNS shows by now what another attempt can act upon, although the
	// record is not complete. May be nil.
	Again func(propagation.Report) bool
}

// pass waits at the gate for one identifier. It returns what DNS showed,
// or the error for this attempt.
func (s *session) pass(ctx context.Context, w *wanted, o ca.Offer, job job) (propagation.Report, error) {
	known, err := s.store.Name(ctx, w.record.Name)
	if err != nil {
		return propagation.Report{}, err
	}
	if next := known.NextAttempt(); walltime.Now().Before(next) {
		return propagation.Report{}, s.park(ctx, Parking{
			Identifier: w.identifier, Record: w.record, Retry: next,
			Err: &BudgetError{Name: w.record.Name, Failed: len(known.Attempts), RetryAt: next},
		})
	}
	if s.iss.Checker == nil {
		return propagation.Report{}, s.account.Check(ctx)
	}
	target := s.target(*w, known)
	if p := s.iss.Publishing; !s.iss.publishes() {
		// others write
	} else if at, err := s.place(*w, target); err != nil {
		return propagation.Report{}, err
	} else if err := s.endWrites(ctx, p, s.iss.Checker, at); err != nil {
		s.logger.Warn("a write that was cut short could not be ended; this is tried again with the next attempt",
			zap.String("name", w.record.Name), zap.Error(err))
	}
	if err := s.noteInterest(ctx, *w, target); err != nil {
		return propagation.Report{}, err
	}
	if job.watched != nil && job.watched.Status == propagation.StatusReady {
		return *job.watched, s.follow(ctx, s.iss.Checker, w, *job.watched)
	}
	gate := propagation.NewGate(s.iss.Grace, s.iss.Settle)
	report := s.iss.Checker.Check(ctx, target, gate)
	report = s.waitInline(ctx, w.identifier, target, gate, report, s.clockOf(known, job))
	if err := s.follow(ctx, s.iss.Checker, w, report); err != nil && ctx.Err() == nil {
		return propagation.Report{}, err
	}
	if err := ctx.Err(); err != nil {
		return propagation.Report{}, fmt.Errorf("looking for the record of %s: %w", w.identifier, context.Cause(ctx))
	}
	if report.Status == propagation.StatusReady {
		return report, nil
	}
	report, failed := s.published(ctx, w, target, gate, report, known, o, s.clockOf(known, job))
	if err := ctx.Err(); err != nil {
		return propagation.Report{}, fmt.Errorf("publishing the record of %s: %w", w.identifier, context.Cause(ctx))
	}
	if report.Status == propagation.StatusReady {
		return report, nil
	}
	due, err := s.clock(ctx, *w, report, known, job)
	if err != nil {
		return propagation.Report{}, err
	}
	if !due.IsZero() && !walltime.Now().Before(due) {
		s.logger.Warn("the certificate cannot wait for DNS any longer; asking the CA although not every server has the record",
			zap.String("identifier", w.identifier), zap.String("name", w.record.Name), zap.String("dns", report.Summary()))
		return report, nil
	}
	// nobody is shown a record before the CA has confirmed the account
	if err := s.account.Check(ctx); err != nil {
		return propagation.Report{}, err
	}
	s.suspectLostStorage(*w, report)
	if err := s.refine(w, report.Values, known, o); err != nil {
		return propagation.Report{}, err
	}
	report = gate.Report() // what is kept while the name waits
	retry := due
	var waiting error = &WaitingError{Identifier: w.identifier, Record: w.record, Report: report, Retry: due}
	var unpublished *PublishError
	if w.foreign != "" {
		waiting = fmt.Errorf("%w; %w", waiting, &ForeignAliasError{w.record.Name, w.foreign, w.target, w.why})
	}
	if errors.As(failed, &unpublished) {
		waiting = fmt.Errorf("%w; %w", waiting, failed)
		if retry.IsZero() || unpublished.RetryAt.Before(retry) {
			retry = unpublished.RetryAt
		}
	}
	return propagation.Report{}, s.park(ctx, Parking{
		Identifier: w.identifier, Record: w.record, Also: w.also,
		Checker: s.iss.Checker, Target: target, Gate: gate, Report: report, Retry: retry, Err: waiting,
		Again: s.elsewhere(*w, report), Find: finder(*w),
	})
}

// finder explains reports on a name.
func finder(w wanted) func(propagation.Report) Finding {
	return func(r propagation.Report) Finding {
		at, _ := w.record.AtEnd(r)
		return find(at, w.want, r)
	}
}

// park hands the name to the Parker, if there is one.
func (s *session) park(ctx context.Context, p Parking) error {
	p.CA, p.Account, p.NotAfter = s.iss.CA, s.account.URL, s.notAfter
	if s.iss.Parker != nil {
		return s.iss.Parker.Park(ctx, p)
	}
	return p.Err
}

// clockOf is the clock of a name.
func (s *session) clockOf(known state.Name, job job) clock {
	c := clock{certificate: job.certificate, ratio: s.iss.windowRatio(), partialSince: known.PartialSince, shortest: s.iss.MinAskInterval}
	if len(known.Attempts) > 0 {
		c.lastAttempt = known.Attempts[len(known.Attempts)-1]
	}
	return c
}

// waitInline looks again while at least one server shows the record, for as long
// as one attempt may take and the certificate can wait.
func (s *session) waitInline(ctx context.Context, identifier string, t propagation.Target, g *propagation.Gate, r propagation.Report, c clock) propagation.Report {
	if s.iss.NoWait {
		return r
	}
	start, clockAtStart := time.Now(), walltime.Now()
	for r.Status == propagation.StatusPartial || r.Status == propagation.StatusSettling {
		waited := time.Since(start)
		left := s.iss.propagationTimeout() - waited
		if end := c.waitUntil(r.Status == propagation.StatusSettling, clockAtStart); !end.IsZero() {
			left = min(left, walltime.Until(end))
		}
		if left <= 0 {
			return r
		}
		s.KeepLock(ctx, identifier)
		if ca.Sleep(ctx, min(nextLook(r, waited, s.iss.pollInterval()), left)) != nil {
			return r
		}
		r = s.iss.Checker.Check(ctx, t, g)
	}
	return r
}

// nextLook is how long to wait until the next look: a tenth of what was waited, and
// not beyond the moment at which the gate may open by itself.
func nextLook(r propagation.Report, waited, shortest time.Duration) time.Duration {
	interval := min(max(waited/10, shortest), 5*time.Second)
	if !r.LookAgainAt.IsZero() {
		interval = min(interval, max(time.Until(r.LookAgainAt), 10*time.Millisecond))
	}
	return interval
}

// clock says when the CA is to be asked whatever DNS shows, and keeps what it
// needs to know for that.
func (s *session) clock(ctx context.Context, w wanted, r propagation.Report, known state.Name, job job) (time.Time, error) {
	partial := r.Status == propagation.StatusPartial || r.Status == propagation.StatusSettling
	if partial == known.PartialSince.IsZero() {
		err := s.store.UpdateName(ctx, w.record.Name, func(n *state.Name) bool {
			n.AddIdentifier(w.identifier)
			n.PartialSince = time.Time{}
			if partial {
				n.PartialSince = walltime.Now().UTC()
			}
			known = *n
			return true
		})
		if err != nil {
			return time.Time{}, err
		}
	}
	if w := job.watched; w != nil && partial && !w.FirstYes.IsZero() && w.FirstYes.Before(known.PartialSince) {
		// the watch has seen it before this attempt did
		known.PartialSince = w.FirstYes
	}
	return s.clockOf(known, job).due(), nil
}

// suspectLostStorage warns when a new account was registered although DNS shows
// that this name already trusts another one of the same CA.
func (s *session) suspectLostStorage(w wanted, r propagation.Report) {
	if !s.account.IsNew() {
		return
	}
	for _, v := range record.Evaluate(r.Values, w.want, time.Now()).Verdicts {
		if v.Code == record.CodeWrongAccount {
			s.logger.Error("storage lost? a new ACME account was registered, but DNS already names another one of this CA: restore its key, or publish the new record",
				zap.String("name", w.record.Name), zap.String("standing_account", v.Value.AccountURI), zap.String("registered_account", s.account.URL))
			return
		}
	}
}
