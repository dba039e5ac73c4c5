package acmepersist

import (
	"crypto/x509"
	"errors"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
)

// The time of all rows, and certificates of 90 days: one that is far from its end, and one that runs out.
var (
	decideNow = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	renewing  = certificateEnding(decideNow.Add(29 * 24 * time.Hour))
	endingNow = certificateEnding(decideNow.Add(10 * 24 * time.Hour))
)

func certificateEnding(at time.Time) *x509.Certificate {
	return &x509.Certificate{NotBefore: at.Add(-90 * 24 * time.Hour), NotAfter: at}
}

// ready are facts with which the CA is asked; each row changes what it is about.
func readyFacts() facts {
	return facts{
		looks: true, ratio: 1.0 / 3, bound: true, order: new(orderFacts), terms: termsShown, confirmed: true, caa: new(caaFacts), inLane: true,
		report: &propagation.Report{Status: propagation.StatusReady}, lookedAt: decideNow,
	}
}

// shows has DNS show something.
func (f *facts) shows(s propagation.Status) { f.report = &propagation.Report{Status: s} }

func minutes(n int) time.Time { return decideNow.Add(time.Duration(n) * time.Minute) }

func TestDecide(t *testing.T) {
	since := func(at time.Time) *time.Time { return &at }
	const hour, day = 60, 24 * 60
	reasons := make(map[Reason]step)
	for _, row := range []struct {
		name   string
		facts  func(f *facts)
		step   step
		change change
	}{
		{"the CA does not offer the challenge", func(f *facts) { f.notOffered = minutes(5); f.bound = false }, step{doHold, ReasonNotOffered, minutes(5)}, change{}},
		{"it may offer it again", func(f *facts) { f.notOffered = minutes(0); f.bound = false }, step{do: doBind}, change{}},
		{"no account", func(f *facts) { f.bound = false }, step{do: doBind}, change{}},
		{"an order may be kept", func(f *facts) { f.order = nil }, step{do: doResume}, change{}},

		{"the order is valid, whatever DNS shows", func(f *facts) { f.order.stage = orderValid; f.report = nil }, step{do: doFinish}, change{}},
		{"the order is posted, whatever DNS shows", func(f *facts) { f.order.stage = orderPosted; f.report = nil }, step{do: doPoll}, change{}},
		{"the CA takes its time: a quarter of what it took", func(f *facts) {
			*f.order = orderFacts{orderProcessing, minutes(-20), time.Second}
		}, step{doHold, ReasonProcessing, minutes(5)}, change{}},
		{"but not less than it asks for", func(f *facts) {
			*f.order = orderFacts{orderProcessing, minutes(0), time.Minute}
		}, step{doHold, ReasonProcessing, minutes(1)}, change{}},
		{"nor more than ten minutes", func(f *facts) {
			*f.order = orderFacts{orderProcessing, minutes(-10 * hour), time.Second}
		}, step{doHold, ReasonProcessing, minutes(10)}, change{}},
		{"the CA has refused what DNS shows: only time helps", func(f *facts) { f.order.stage = orderRefused }, step{doHold, ReasonRejected, minutes(1)}, change{}},
		{"and it is to be asked later", func(f *facts) { f.order.stage = orderRefused; f.name.NotBefore = minutes(7) }, step{doHold, ReasonRejected, minutes(7)}, change{}},
		{"a renewal waits as long", func(f *facts) { f.order.stage = orderRefused; f.certificate = renewing }, step{doHold, ReasonRejected, minutes(1)}, change{}},
		{"a certificate that runs out was refused against what DNS advises", func(f *facts) {
			f.order.stage, f.certificate = orderRefused, endingNow
			f.shows(propagation.StatusAbsent)
		}, step{doHold, ReasonRejected, minutes(6 * hour)}, change{}},
		{"a refusal that came while nobody looked", func(f *facts) {
			f.order.stage, f.certificate, f.report = orderRefused, endingNow, nil
		}, step{doHold, ReasonRejected, minutes(6 * hour)}, change{}},

		{"nothing is known of the CA", func(f *facts) { f.terms = termsUnknown }, step{do: doLearn}, change{}},
		{"the CA has shown nothing", func(f *facts) { f.terms = termsHidden; f.report = nil }, step{do: doOrder}, change{}},
		{"the budget is used up", func(f *facts) {
			f.name.Attempts = []time.Time{minutes(-9), minutes(-8), minutes(-7), minutes(-6)}
		}, step{doHold, ReasonBudget, minutes(6*hour - 6)}, change{}},

		{"nobody looks: the account first", func(f *facts) { f.looks, f.confirmed, f.report = false, false, nil }, step{do: doConfirm}, change{}},
		{"nobody looks: then the CA", func(f *facts) { f.looks, f.report = false, nil }, step{do: doOrder}, change{}},
		{"nobody has looked", func(f *facts) { f.report = nil }, step{do: doLook}, change{}},
		{"a look is too old", func(f *facts) { f.lookedAt = minutes(-2) }, step{do: doLook}, change{}},
		{"a look by a clock that was put back", func(f *facts) { f.lookedAt = minutes(2) }, step{do: doLook}, change{}},
		{"an order that took long needs no other look", func(f *facts) { f.lookedAt = minutes(-2); f.order.stage = orderOpen }, step{do: doPost}, change{attempt: decideNow}},

		{"the record is missing and ours to publish: the account first", func(f *facts) {
			f.shows(propagation.StatusAbsent)
			f.writable, f.confirmed = true, false
		}, step{do: doConfirm}, change{}},
		{"then it is published, also for a certificate that runs out", func(f *facts) {
			f.shows(propagation.StatusAbsent)
			f.writable, f.certificate = true, endingNow
		}, step{do: doPublish}, change{}},
		{"it is not published twice", func(f *facts) {
			f.shows(propagation.StatusAbsent)
			f.writable, f.written = true, new(writeFacts)
		}, step{do: doHold}, change{}},
		{"publishing failed", func(f *facts) {
			f.shows(propagation.StatusAbsent)
			f.writable, f.written = true, &writeFacts{minutes(3)}
		}, step{doHold, ReasonPublish, minutes(3)}, change{}},
		{"publishing failed, and the CA is asked before that", func(f *facts) {
			f.shows(propagation.StatusAbsent)
			f.writable, f.written, f.certificate = true, &writeFacts{minutes(30 * day)}, renewing
		}, step{doHold, ReasonPublish, renewing.NotAfter.Add(-15 * 24 * time.Hour)}, change{}},

		{"the record is missing: nobody is shown it before the account is confirmed", func(f *facts) {
			f.shows(propagation.StatusAbsent)
			f.confirmed = false
		}, step{do: doConfirm}, change{}},
		{"then it is waited for, without end", func(f *facts) { f.shows(propagation.StatusAbsent) }, step{do: doHold}, change{}},
		{"DNS cannot be looked at", func(f *facts) { f.shows(propagation.StatusBlocked) }, step{do: doHold}, change{}},
		{"a renewal waits until half of its window", func(f *facts) {
			f.shows(propagation.StatusAbsent)
			f.certificate = renewing
		}, step{do: doHold, until: renewing.NotAfter.Add(-15 * 24 * time.Hour)}, change{}},
		{"then the CA is asked whatever DNS shows", func(f *facts) {
			f.shows(propagation.StatusAbsent)
			f.certificate = endingNow
		}, step{do: doOrder}, change{}},
		{"and again after six hours", func(f *facts) {
			f.shows(propagation.StatusAbsent)
			f.certificate, f.name.Attempts = endingNow, []time.Time{minutes(-hour)}
		}, step{do: doHold, until: minutes(5 * hour)}, change{}},
		{
			"some servers show it: that is noted, and the rest has an hour", func(f *facts) { f.shows(propagation.StatusPartial) },
			step{do: doHold, until: minutes(hour)},
			change{partial: since(decideNow)},
		},
		{
			"it settles", func(f *facts) { f.shows(propagation.StatusConfirming) },
			step{do: doHold, until: minutes(hour)},
			change{partial: since(decideNow)},
		},
		{"the watch has seen it before", func(f *facts) {
			f.shows(propagation.StatusPartial)
			f.firstYes = minutes(-10)
		}, step{do: doHold, until: minutes(hour - 10)}, change{partial: since(decideNow)}},
		{"an earlier attempt has", func(f *facts) {
			f.shows(propagation.StatusPartial)
			f.name.PartialSince = minutes(-20)
		}, step{do: doHold, until: minutes(hour - 20)}, change{}},
		{"the hour is over", func(f *facts) {
			f.shows(propagation.StatusPartial)
			f.name.PartialSince = minutes(-hour)
		}, step{do: doOrder}, change{}},
		{"the hour is over, as the watch knows", func(f *facts) {
			f.shows(propagation.StatusPartial)
			f.firstYes = minutes(-hour)
		}, step{do: doOrder}, change{partial: since(decideNow)}},
		{"the record is gone again", func(f *facts) {
			f.shows(propagation.StatusAbsent)
			f.name.PartialSince = minutes(-20)
		}, step{do: doHold}, change{partial: since(time.Time{})}},

		{"CAA records are not known", func(f *facts) { f.caa = nil }, step{do: doCAA}, change{}},
		{
			"CAA records forbid a first certificate", func(f *facts) { f.caa.forbid = true },
			step{doHold, ReasonCAA, minutes(30)},
			change{caa: since(decideNow)},
		},
		{"they have for half an hour", func(f *facts) { f.caa.forbid, f.name.CAASince = true, minutes(-30) }, step{doHold, ReasonCAA, minutes(30)}, change{}},
		{
			"after an hour the CA is asked", func(f *facts) { f.caa.forbid, f.name.CAASince = true, minutes(-hour) },
			step{do: doOverrule},
			change{caa: since(minutes(5 * hour))},
		},
		{"and not again for six", func(f *facts) { f.caa.forbid, f.name.CAASince = true, minutes(4*hour) }, step{doHold, ReasonCAA, minutes(30)}, change{}},
		{"they forbid a renewal that has time", func(f *facts) { f.caa.forbid, f.certificate = true, renewing }, step{doHold, ReasonCAA, minutes(30)}, change{}},
		{"a certificate that runs out disregards them", func(f *facts) { f.caa.forbid, f.certificate = true, endingNow }, step{do: doOverrule}, change{}},
		{"they were disregarded", func(f *facts) { *f.caa = caaFacts{true, true} }, step{do: doOrder}, change{}},

		{"no lane: for the order", func(f *facts) { f.inLane = false }, step{do: doEnter}, change{}},
		{"no lane: to ask, which is not counted yet", func(f *facts) { f.inLane, f.order.stage = false, orderOpen }, step{do: doEnter}, change{}},
		{"no lane: for the certificate", func(f *facts) { f.inLane, f.order.stage = false, orderValid }, step{do: doEnter}, change{}},
		{"no lane: the CA is waited for without", func(f *facts) { f.inLane, f.order.stage = false, orderPosted }, step{do: doPoll}, change{}},
		{"no lane: the look has become too old meanwhile", func(f *facts) { f.inLane, f.lookedAt = false, minutes(-2) }, step{do: doLook}, change{}},
		{
			"no lane: what was seen is noted before", func(f *facts) {
				f.shows(propagation.StatusPartial)
				f.inLane, f.firstYes = false, minutes(-hour)
			},
			step{do: doEnter},
			change{partial: since(decideNow)},
		},
		{"the record is ready", func(*facts) {}, step{do: doOrder}, change{}},
		{"the CA waits for the validation: it is counted before", func(f *facts) { f.order.stage = orderOpen }, step{do: doPost}, change{attempt: decideNow}},
		{"its challenge wants another record", func(f *facts) { f.order.stage = orderOpen; f.report = nil }, step{do: doLook}, change{}},
	} {
		f := readyFacts()
		row.facts(&f)
		s, c := decide(f, decideNow)
		if s != row.step {
			t.Errorf("%s: the step is %v, want %v", row.name, s, row.step)
		}
		if !reflect.DeepEqual(c, row.change) {
			t.Errorf("%s: noted is %+v, want %+v", row.name, c, row.change)
		}
		if s.do == doHold && s.reason != "" && s.reason != ReasonPublish {
			reasons[s.reason] = s
		}
	}
	// each of them comes out as a Hold; what waits for the record is tested with a look
	for reason, s := range reasons {
		a := &attempt{session: sessionAt(t, `{}`, Config{}), domain: "a.example", facts: readyFacts()}
		var hold *Hold
		if err := a.holdAt(t.Context(), s); !errors.As(err, &hold) || hold.Reason != reason {
			t.Errorf("%s: the error is %v", reason, err)
		}
	}
}

// happens has a step come out one way or another.
func (f *facts) happens(s step, now time.Time, r *rand.Rand) {
	statuses := []propagation.Status{
		propagation.StatusAbsent, propagation.StatusPartial, propagation.StatusConfirming, propagation.StatusBlocked, propagation.StatusReady,
	}
	stages := []orderStage{orderNone, orderOpen, orderPosted, orderProcessing, orderRefused, orderValid}
	f.inLane = f.inLane && (s.do.needsLane() || s.do == doPoll)
	switch s.do {
	case doBind:
		f.bound = true
	case doResume:
		f.order = &orderFacts{stage: []orderStage{orderNone, orderNone, orderPosted, orderRefused, orderValid}[r.IntN(5)]}
	case doLearn:
		f.terms = termsHidden + termsKnown(r.IntN(2))
		if r.IntN(4) == 0 {
			f.notOffered = now.Add(time.Hour)
		}
	case doLook:
		f.report, f.lookedAt = &propagation.Report{Status: statuses[r.IntN(len(statuses))]}, now
		f.writable = r.IntN(2) == 0
	case doConfirm:
		f.confirmed = true
	case doPublish:
		f.written = new(writeFacts)
		if r.IntN(2) == 0 {
			f.report = nil
		} else {
			f.written.retryAt = now.Add(time.Minute)
		}
	case doCAA:
		f.caa = &caaFacts{forbid: r.IntN(2) == 0}
	case doOverrule:
		f.caa.overruled = true
	case doEnter:
		f.inLane = true
	case doOrder:
		f.order.stage = stages[1+r.IntN(len(stages)-1)]
		if f.terms = termsShown; f.order.stage == orderOpen && r.IntN(2) == 0 {
			f.report, f.written = nil, nil // the challenge wants another form
		}
	case doPost:
		f.order.stage = orderPosted
	case doPoll:
		f.order.stage = stages[3+r.IntN(3)]
	}
}

// Whatever comes of its steps, an attempt ends, and the CA is asked for a validation once at most.
func TestEveryAttemptEnds(t *testing.T) {
	most := 0
	for seed := range uint64(20_000) {
		r := rand.New(rand.NewPCG(seed, 7))
		f := facts{looks: r.IntN(4) > 0, ratio: 1.0 / 3, certificate: []*x509.Certificate{nil, renewing, endingNow}[r.IntN(3)]}
		if r.IntN(3) == 0 {
			f.name = state.Name{PartialSince: minutes(-r.IntN(120)), CAASince: minutes(-r.IntN(120))}
		}
		now, posts, steps := decideNow, 0, 0
		for ; ; steps++ {
			s, c := decide(f, now)
			c.noted(&f.name, "a.example")
			if s.do == doHold || s.do == doFinish {
				break
			}
			if s.do == doPost {
				if posts++; c.attempt.IsZero() {
					t.Fatalf("seed %d: the CA is asked before that is counted", seed)
				}
				if f.looks && !f.isReady() && !f.confirmed && f.certificate == nil && f.name.PartialSince.IsZero() {
					t.Fatalf("seed %d: the CA is asked although nothing speaks for it", seed)
				}
			}
			if f.happens(s, now, r); steps > mostSteps {
				t.Fatalf("seed %d: no end after %d steps", seed, steps)
			}
			now = now.Add(time.Duration(r.IntN(50)) * time.Second)
		}
		if most = max(most, steps); posts > 1 {
			t.Fatalf("seed %d: the CA is asked %d times", seed, posts)
		}
	}
	if most > mostSteps/2 {
		t.Errorf("an attempt takes %d steps, too near to the bound of %d", most, mostSteps)
	}
}
