package parking

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
	"github.com/dnspersist/caddy-dnspersist/internal/walltime"
)

const (
	// AttemptTimeout bounds a retry until the CA is asked to finalize: CertMagic would go on for thirty
	// days.
	AttemptTimeout = 15 * time.Minute
	// untroubled is how long a domain is left alone while an attempt for it goes on, or after a retry that came to no
	// issuer.
	untroubled = time.Minute
)

// ErrTookLong is the cause of the end of an attempt after AttemptTimeout: that is a failure, and the end of a
// configuration or a visit is not.
var ErrTookLong = fmt.Errorf("the attempt has taken longer than %s", AttemptTimeout)

// IsCutShort reports whether an attempt was ended by a reload or by a visitor who has left: then nothing has failed.
func IsCutShort(ctx context.Context) bool {
	return ctx.Err() != nil && !errors.Is(context.Cause(ctx), ErrTookLong)
}

// failureWaits are the times after which a domain that waits is tried again whose attempt has failed
// with something else than a Hold: the first ones are CertMagic's. The last one repeats.
var failureWaits = []time.Duration{
	time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute, 20 * time.Minute, 30 * time.Minute, time.Hour,
}

// AfterFailures is how long a domain waits after so many failures in a row; notAfter is the end of
// the certificate that is to be renewed, zero for a first one.
func AfterFailures(failures int, notAfter, now time.Time) time.Duration {
	wait := failureWaits[min(failures, len(failureWaits))-1]
	if left := notAfter.Sub(now); left > 0 {
		wait = min(wait, max(left/8, 10*time.Second))
	}
	return wait
}

// tryAt has a domain retried at a time of day, such as the end of a certificate asks for. The
// timer goes on over a change of the clock, and that it has run out counts as well: a clock that
// is put back keeps nothing waiting.
func (e *entry) tryAt(at time.Time, why string) {
	e.retryAt, e.due = at, time.Now().Add(walltime.Until(at))
	e.arm(why)
}

// arm sets the timer for when a domain is to be retried, or forgotten.
func (e *entry) arm(why string) {
	if e.timer != nil {
		e.timer.Stop()
	}
	at := e.due
	if forget := e.forgetAt(); !forget.IsZero() && forget.Before(at) {
		at = forget
	}
	e.timer = time.AfterFunc(max(time.Until(at), time.Second), func() { e.timeUp(why) })
}

// timeUp is what arm has set the timer for.
func (e *entry) timeUp(why string) {
	r := e.registry
	r.mu.Lock()
	defer r.unlock()
	now := time.Now()
	switch forget := e.forgetAt(); {
	case r.entries[e.key] != e:
	case !forget.IsZero() && !now.Before(forget) && !e.isBusy(now):
		interest := e.guest.interest
		e.remove()
		r.log(func(l *zap.Logger) {
			l.Debug("nobody has asked for the name for long, and no record of it was ever seen; not watching it any more",
				zap.String("domain", e.domain), zap.Duration("since", now.Sub(interest)))
		})
	case now.Before(e.due):
		e.arm(why) // somebody has asked for it meanwhile
	case now.Before(e.freeAt(now)):
		// another timer would not come
		e.retryAt, e.due = time.Time{}, e.freeAt(now)
		e.arm(why)
	default:
		e.retryAt = time.Time{}
		level := zapcore.DebugLevel // nothing has changed
		if !e.readyAt.IsZero() {
			level = zapcore.InfoLevel
		}
		r.later(func() { e.retry(why, level) })
	}
}

// called has a domain retried whose turn has come at what it was held with. An attempt that comes by itself is not
// answered from memory any more.
func (e *entry) called(hold *acmepersist.Hold) {
	r := e.registry
	r.mu.Lock()
	defer r.unlock()
	const why = "its turn at the CA has come"
	switch now := time.Now(); {
	case r.closed, r.entries[e.key] != e, e.hold != hold, e.failure != nil: // it waits for something else now
	case now.Before(e.freeAt(now)):
		e.tryAt(walltime.Now(), why)
	default:
		e.retryAt = time.Time{}
		e.lineUp(why, zapcore.DebugLevel)
	}
}

// retry has CertMagic try a domain again once it is first in line.
func (e *entry) retry(why string, level zapcore.Level) {
	r := e.registry
	r.mu.Lock()
	defer r.unlock()
	e.lineUp(why, level)
}

// lineUp puts a domain in line, if it may be retried.
func (e *entry) lineUp(why string, level zapcore.Level) {
	r := e.registry
	if now := time.Now(); r.closed || r.entries[e.key] != e || e.newest() == nil || now.Before(e.freeAt(now)) {
		return
	}
	l := r.lines[e.hold.CA]
	if l == nil {
		l = new(line)
		r.lines[e.hold.CA] = l
	}
	e.isInLine = true
	heap.Push(l, retry{entry: e, need: e.need(), why: why, level: level})
	r.advance(l)
}

// begin has CertMagic obtain the certificate now, through the newest live configuration that wants it. A reload may
// fail and leave an older one running.
func (t retry) begin(o Owner) {
	e := t.entry
	r := e.registry
	if o.Configuration().Go(func(alive context.Context) {
		var failure error
		defer func() { e.retried(alive, t.count, failure) }()
		r.mu.Lock()
		notAfter := e.hold.NotAfter
		r.unlock()
		logger := o.Configuration().Logger
		logger.Log(levelFor(o.IsOnDemand(), t.level), "trying again to obtain the certificate", zap.String("domain", e.domain), zap.String("reason", t.why))
		done, err := o.Obtain(alive, e.domain, notAfter)
		if done {
			r.mu.Lock()
			e.remove()
			r.unlock()
		}
		var hold *acmepersist.Hold
		if err != nil && alive.Err() == nil && !errors.As(err, &hold) {
			failure = err
			logger.Error("no certificate was obtained", zap.String("domain", e.domain), zap.Error(err))
		}
	}) {
		return
	}
	// it ends at this very moment; the one before it may live
	r.mu.Lock()
	e.owners = slices.DeleteFunc(e.owners, func(other Owner) bool { return other == o })
	e.busyUntil = time.Time{}
	e.leaveLine()
	r.unlock()
	e.retry(t.why, t.level)
}

// retried ends a retry. A domain that still waits gets its next turn: not at once, though its record may be complete,
// if CertMagic has failed before it came to an issuer, or there was nothing that it could do.
func (e *entry) retried(alive context.Context, count int, failure error) {
	r := e.registry
	r.mu.Lock()
	defer r.unlock()
	if count != e.retries {
		return // another one has begun since the domain was held anew
	}
	e.leaveLine()
	now := time.Now()
	switch {
	case e.busyUntil.IsZero(): // it is held anew
	case now.Before(e.failedUntil): // it has failed already
		e.busyUntil = time.Time{}
	case failure != nil && r.entries[e.key] == e:
		e.busyUntil = time.Time{}
		e.fail(failure)
		r.changed(e.domain)
	case alive.Err() != nil:
		e.busyUntil = now
	default:
		e.busyUntil = now.Add(untroubled)
	}
	if r.entries[e.key] == e && !walltime.Now().Before(e.retryAt) {
		// retryAt stays past until the domain is held anew, or an attempt that is still
		// on its way would be answered from memory
		e.due = time.Now().Add(acmepersist.RetryAgain)
		e.arm("it is time to try again")
	}
}

// Forget ends the wait for a domain that strangers have asked for, and reports whether there was one.
func (r *Registry) Forget(o Owner, domain string) bool {
	r.mu.Lock()
	defer r.unlock()
	e := r.entries[keyOf(o, domain)]
	if e == nil || e.guest == nil {
		return false
	}
	e.remove()
	return true
}

// Waits reports whether a domain waits for an owner. It never waits for the registry: CertMagic logs while it
// holds the lock of its cache, and what is logged depends on this.
func (r *Registry) Waits(o Owner, domain string) bool {
	_, waits := r.waiting.Load(keyOf(o, domain))
	return waits
}

// pokeEvery is the shortest time between two attempts for which somebody has asked.
const pokeEvery = time.Minute

// Poke has DNS looked at again at once for those of the domains that wait for their record, for all of
// them if no domain is given, and returns how many that are. A given domain that waits for what somebody may
// have set right meanwhile is tried again, at once or as soon as a minute is over.
func (r *Registry) Poke(domains []string) int {
	wanted := make(map[string]bool)
	for _, d := range domains {
		if normal, err := record.Normalize(d); err == nil {
			wanted[normal] = true
		}
	}
	r.mu.Lock()
	defer r.unlock()
	n, now := 0, time.Now()
	for key, e := range r.entries {
		if len(domains) > 0 && !wanted[e.domain] {
			continue
		}
		if e.stopWatch != nil {
			n++
			r.later(func() { r.scheduler.Poke(key) })
		}
		if len(domains) > 0 && e.isHeld && e.pokeTimer == nil && isCorrectable(e.hold.Reason) {
			e.poke(now)
		}
	}
	return n
}

// poke has a domain tried again as soon as it may be.
func (e *entry) poke(now time.Time) {
	r := e.registry
	at := e.pokedAt.Add(pokeEvery)
	if free := e.freeAt(now); free.After(at) {
		at = free
	}
	if !at.After(now) {
		e.pokedAt = now
		r.later(e.tryCorrected)
		return
	}
	e.pokeAt = walltime.Now().Add(at.Sub(now))
	e.pokeTimer = time.AfterFunc(at.Sub(now), func() {
		r.mu.Lock()
		defer r.unlock()
		if e.pokeTimer = nil; r.entries[e.key] == e && e.isHeld && isCorrectable(e.hold.Reason) {
			e.poke(time.Now())
		}
	})
}

// isCorrectable reports whether somebody may correct what is waited for, and nothing but an attempt shows it.
func isCorrectable(reason acmepersist.Reason) bool {
	switch reason {
	case acmepersist.ReasonCAA, acmepersist.ReasonAccount, acmepersist.ReasonAccountURI, acmepersist.ReasonBudget, acmepersist.ReasonRejected:
		return true
	}
	return false
}

// tryCorrected has a domain tried again that may not have to wait any more: somebody may have corrected the CAA
// records or restored the account, and the CA may have accepted the domain when a command has asked it, which
// storage knows.
func (e *entry) tryCorrected() {
	r := e.registry
	r.mu.Lock()
	reason, name, o := e.hold.Reason, e.status().ValidationName(), e.newest()
	r.unlock()
	again := func() {
		r.mu.Lock()
		e.retryAt = time.Time{} // or the attempt would be answered from memory
		r.unlock()
		e.retry("somebody has asked for the domain", zapcore.InfoLevel)
	}
	switch reason {
	case acmepersist.ReasonCAA, acmepersist.ReasonAccount, acmepersist.ReasonAccountURI:
		again()
	case acmepersist.ReasonBudget, acmepersist.ReasonRejected:
		if o == nil {
			return
		}
		o.Configuration().Go(func(alive context.Context) {
			known, err := o.Storage().Name(alive, name)
			if err == nil && !known.NextAttempt().After(walltime.Now()) {
				again()
			}
		})
	}
}
