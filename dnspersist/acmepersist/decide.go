package acmepersist

import (
	"crypto/x509"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
)

// facts is what an attempt knows. What is nil, or false, is not known yet, and yields the step that finds
// it out.
type facts struct {
	// looks is false where nobody looks for records and the operator is trusted.
	looks bool
	// ratio and shortest are those of the clock.
	ratio    float64
	shortest time.Duration
	// certificate is the one that is renewed, nil for a first one.
	certificate *x509.Certificate

	// notOffered is until when the CA is believed that does not offer the challenge.
	notOffered time.Time
	// bound is true once there is an account.
	bound bool
	// name is what storage remembers of the validation name.
	name state.Name
	// order is how far the order is.
	order *orderFacts
	// terms is what is known of what the CA wants to see.
	terms termsKnown
	// report is what DNS shows, lookedAt when that was seen.
	report   *propagation.Report
	lookedAt time.Time
	// firstYes is since when a watch has seen the record on some servers.
	firstYes time.Time
	// writable says that no server shows the record, and that it is ours to publish.
	writable bool
	// written is what came of publishing it.
	written *writeFacts
	// confirmed is true once the CA has confirmed the account.
	confirmed bool
	// caa is what CAA records say.
	caa *caaFacts
	// inLane is true while there is a lane to the CA.
	inLane bool
}

// termsKnown says what is known of what the CA wants to see.
type termsKnown int

const (
	termsUnknown termsKnown = iota
	// termsHidden: an order was made to learn it and showed nothing, as an authorization that is valid from an
	// earlier order does: there is no record to look for, and the order is gone on with.
	termsHidden
	// termsShown: records can be asked for.
	termsShown
)

// orderFacts is how far the order is.
type orderFacts struct {
	stage orderStage
	// postedAt is when the CA was asked to validate, wait what it wants to be left alone for.
	postedAt time.Time
	wait     time.Duration
}

// orderStage is how far an order is.
type orderStage int

const (
	// orderNone: there is none, or one that nothing was asked of yet, which is taken instead of a new one.
	orderNone orderStage = iota
	// orderOpen: the CA waits to be asked for the validation.
	orderOpen
	// orderPosted: it was asked.
	orderPosted
	// orderProcessing: it has not decided for as long as an attempt waits.
	orderProcessing
	// orderRefused: it has refused.
	orderRefused
	// orderValid: there is nothing left to validate.
	orderValid
)

// writeFacts is what came of publishing a record: nothing is wrong where retryAt is zero.
type writeFacts struct {
	retryAt time.Time
}

// caaFacts is what CAA records say.
type caaFacts struct {
	forbid, overruled bool
}

// action is what an attempt does next.
type action string

const (
	doBind     action = "bind the account"
	doResume   action = "go on with a kept order"
	doLearn    action = "learn what the CA offers"
	doLook     action = "look for the record"
	doConfirm  action = "confirm the account"
	doPublish  action = "publish the record"
	doCAA      action = "look for CAA records"
	doOverrule action = "disregard CAA records"
	doEnter    action = "enter a lane to the CA"
	doOrder    action = "make the order"
	doPost     action = "ask the CA to validate"
	doPoll     action = "wait for the CA"
	doFinish   action = "fetch the certificate"
	doHold     action = "wait"
)

// step is what an attempt does next. The reason, and until when, are those of a hold; where the wait is
// for the record its report tells the reason.
type step struct {
	do     action
	reason Reason
	until  time.Time
}

// change is what has to be noted before a step is made.
type change struct {
	// partial is since when some servers show the record; zero takes that back.
	partial *time.Time
	// caa is since when CAA records seem to forbid the certificate.
	caa *time.Time
	// attempt is when the CA is asked for a validation.
	attempt time.Time
}

// decide says what to do next, and what to note before. It is pure: an attempt is made of its answers.
func decide(f facts, now time.Time) (step, change) {
	s, c := f.next(now)
	if s.do.needsLane() && !f.inLane {
		return step{do: doEnter}, change{partial: c.partial, caa: c.caa}
	}
	return s, c
}

// needsLane reports whether the CA works for us in a step.
func (d action) needsLane() bool { return d == doOrder || d == doPost || d == doFinish }

// next is decide without the lanes.
func (f facts) next(now time.Time) (step, change) {
	switch {
	case now.Before(f.notOffered):
		return step{do: doHold, reason: ReasonNotOffered, until: f.notOffered}, change{}
	case !f.bound:
		return step{do: doBind}, change{}
	case f.order == nil:
		return step{do: doResume}, change{}
	}
	switch f.order.stage {
	case orderValid:
		return step{do: doFinish}, change{}
	case orderRefused:
		return f.rejected(now), change{}
	case orderProcessing:
		wait := afterProcessing(now.Sub(f.order.postedAt), f.order.wait)
		return step{do: doHold, reason: ReasonProcessing, until: now.Add(wait)}, change{}
	case orderPosted:
		return step{do: doPoll}, change{}
	}
	next := f.name.NextAttempt()
	switch {
	case f.terms == termsUnknown:
		return step{do: doLearn}, change{}
	case f.terms == termsHidden:
		return step{do: doOrder}, change{}
	case now.Before(next):
		return step{do: doHold, reason: ReasonBudget, until: next}, change{}
	case !f.looks && !f.confirmed:
		return step{do: doConfirm}, change{}
	case !f.looks:
		return f.ask(now)
	}
	s, c, wait := f.lookAt(now)
	if wait {
		return s, c
	}
	s, asked := f.ask(now)
	asked.partial = c.partial
	return s, asked
}

// lookAt decides by what DNS shows; wait is false if the CA may be asked.
func (f facts) lookAt(now time.Time) (s step, c change, wait bool) {
	if f.report == nil || f.order.stage == orderNone && now.Sub(f.lookedAt).Abs() > ReportFresh {
		return step{do: doLook}, change{}, true
	}
	if f.report.Status == propagation.StatusReady {
		return step{}, change{}, false
	}
	if f.writable && f.written == nil {
		// it comes before a certificate that runs out: that is better asked for with a record
		if !f.confirmed {
			return step{do: doConfirm}, change{}, true
		}
		return step{do: doPublish}, change{}, true
	}
	partial := f.report.Status == propagation.StatusPartial || f.report.Status == propagation.StatusConfirming
	if partial == f.name.PartialSince.IsZero() {
		since := time.Time{}
		if partial {
			since = now.UTC()
		}
		f.name.PartialSince, c.partial = since, &since
	}
	if partial && !f.firstYes.IsZero() && f.firstYes.Before(f.name.PartialSince) {
		f.name.PartialSince = f.firstYes // the watch has seen it before this attempt did
	}
	switch {
	case f.isOverdue(now):
		return step{}, c, false
	case !f.confirmed:
		return step{do: doConfirm}, c, true // nobody is shown a record before
	}
	due := f.clock().due()
	s = step{do: doHold, until: due}
	if w := f.written; w != nil && !w.retryAt.IsZero() {
		s.reason = ReasonPublish
		if due.IsZero() || w.retryAt.Before(due) {
			s.until = w.retryAt
		}
	}
	return s, c, true
}

// ask decides about a CA that may be asked as far as the record goes.
func (f facts) ask(now time.Time) (step, change) {
	switch {
	case f.caa == nil:
		return step{do: doCAA}, change{}
	case f.caa.forbid && !f.caa.overruled:
		return f.forbidden(now)
	case f.order.stage == orderOpen:
		return step{do: doPost}, change{attempt: now.UTC()}
	}
	return step{do: doOrder}, change{}
}

// forbidden decides about CAA records that forbid the certificate. Our resolvers may see others than the
// CA's: it is asked all the same when the certificate runs out, and for a first one after an hour and then
// every six.
func (f facts) forbidden(now time.Time) (step, change) {
	hold := step{do: doHold, reason: ReasonCAA, until: now.Add(caaRetry)}
	if f.certificate != nil {
		if now.Before(clock{certificate: f.certificate, ratio: f.ratio}.due()) {
			return hold, change{}
		}
		return step{do: doOverrule}, change{}
	}
	since := now.UTC()
	switch {
	case f.name.CAASince.IsZero():
		return hold, change{caa: &since}
	case now.Sub(f.name.CAASince) < partialPatience:
		return hold, change{}
	}
	since = since.Add(askInterval - partialPatience)
	return step{do: doOverrule}, change{caa: &since}
}

// rejected decides when a CA is asked again that has refused. If it was asked against what DNS advises,
// DNS is watched meanwhile; else only time helps. A certificate that runs out goes on asking.
func (f facts) rejected(now time.Time) step {
	next := f.name.NextAttempt()
	s := step{do: doHold, reason: ReasonRejected, until: later(next, now.Add(rejectedRetry))}
	if f.certificate != nil {
		c := f.clock()
		c.partialSince, c.lastAttempt = time.Time{}, now
		if due := later(c.due(), next); f.looks && !f.isReady() || due.Before(s.until) {
			s.until = due
		}
	}
	return s
}

// isOverdue reports whether the CA is asked whatever DNS shows.
func (f facts) isOverdue(now time.Time) bool {
	due := f.clock().due()
	return !due.IsZero() && !now.Before(due)
}

func (f facts) isReady() bool { return f.report != nil && f.report.Status == propagation.StatusReady }

func (f facts) clock() clock {
	return clock{
		certificate: f.certificate, ratio: f.ratio, shortest: f.shortest,
		partialSince: f.name.PartialSince, lastAttempt: f.name.LastAttempt(),
	}
}

func (f facts) notAfter() time.Time {
	if f.certificate == nil {
		return time.Time{}
	}
	return f.certificate.NotAfter
}

// noted is the change made to what is remembered of a name.
func (c change) noted(n *state.Name, domain string) {
	n.AddIdentifier(domain)
	if c.partial != nil {
		n.PartialSince = *c.partial
	}
	if c.caa != nil {
		n.CAASince = *c.caa
	}
	if !c.attempt.IsZero() {
		n.CountAttempt(c.attempt)
	}
}

func (c change) isNone() bool { return c == change{} }
