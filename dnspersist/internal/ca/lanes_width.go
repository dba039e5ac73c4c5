package ca

import (
	"fmt"
	"math"
	"time"
)

const (
	// firstWidth is how many lanes there are to a CA of which nothing is known: a few are enough for the first
	// answers, and harm nobody. leastWidth is the least that slow answers leave; failures leave one.
	firstWidth, leastWidth = 4, 4
	// fewQueue and manyQueue are how many requests may queue at the CA itself: with fewer it has nothing to do
	// at times, with more each takes longer and none comes sooner.
	fewQueue, manyQueue = 4, 8
	// quick is an answer that nobody waits for, whatever better ones there were: at a CA on the same machine it
	// is the scheduler that makes the difference.
	quick = 10 * time.Millisecond
	// shortestRound and roundRequests are the least that the width is judged by.
	shortestRound, roundRequests = 200 * time.Millisecond, 8
	// bestFor is how long the quickest answer to a step is remembered, at least, and half of what it is at most:
	// a CA may move to slower machines.
	bestFor = 2 * time.Minute
)

// width is how many lanes a CA bears: it grows while the CA answers as quickly as it can, and shrinks when
// requests queue there, or fail. How many queue is worked out from how long they take beyond the best that was
// seen of their step, as TCP Vegas does (Brakmo, Peterson: TCP Vegas, 1995), for a connection as for a CA: the
// share of the time that a request waits is the share of the requests under way that do.
//
// It asks nobody and reads no clock. It is not safe for concurrent use.
type width struct {
	// lanes is the width, short that it was too small for all who wanted a lane since the round began.
	lanes int
	short bool
	// isFound is true once the first search has ended, in which the width doubles.
	isFound bool

	// best has the quickest answers by step: steps are few, and ours.
	best    map[string]*quickest
	rotated time.Time
	// probed is the width to go back to after a round with half of it, in which the best is found anew.
	probed int

	// round is what was seen since it began.
	round round
	// underway are the requests that have no answer yet, since changed.
	underway int
	changed  time.Time
}

// quickest is the quickest answer of this and of the last stretch of time.
type quickest struct{ now, before time.Duration }

type round struct {
	began time.Time
	// answers are those to requests of this round; took is how long they took, and best the best for their steps.
	answers    int
	took, best time.Duration
	// underway is the requests that were under way, times how long.
	underway time.Duration
	// hasHalved is true once the width was halved in it.
	hasHalved bool
}

func newWidth() width { return width{lanes: firstWidth, best: make(map[string]*quickest)} }

// asked notes that a request was sent.
func (w *width) asked(now time.Time) {
	w.pass(now)
	w.underway++
}

// pass counts the requests under way until now.
func (w *width) pass(now time.Time) {
	if w.round.began.IsZero() {
		w.round.began, w.rotated, w.changed = now, now, now
	}
	w.round.underway += time.Duration(w.underway) * now.Sub(w.changed)
	w.changed = now
}

// requestOutcome is what has become of a request.
type requestOutcome int

const (
	requestAnswered requestOutcome = iota
	// requestFailed: the CA had no answer, or one about its own trouble.
	requestFailed
	// requestDropped: we did not wait for the answer.
	requestDropped
)

// answered notes what has become of a request. Why is not empty if the width has shrunk.
func (w *width) answered(step string, sent, now time.Time, outcome requestOutcome) (why string) {
	w.pass(now)
	w.underway--
	took := now.Sub(sent)
	switch outcome {
	case requestDropped:
		return ""
	case requestFailed:
		return w.halve(now, 1, fmt.Sprintf("%s has failed", step))
	}
	best := w.best[step]
	if best == nil {
		best = &quickest{now: took, before: took}
		w.best[step] = best
	}
	best.now = min(best.now, took)
	if !sent.Before(w.round.began) { // else it tells of the width before
		w.round.answers++
		w.round.took += took
		w.round.best += min(max(best.now, quick), max(best.before, quick), took)
	}
	return w.judge(now)
}

// judge ends a round that has seen enough.
func (w *width) judge(now time.Time) (why string) {
	r := w.round
	lasted := now.Sub(r.began)
	if r.answers < max(roundRequests, w.lanes) || lasted < shortestRound {
		return ""
	}
	underway := float64(r.underway) / float64(lasted)
	queue := underway * (1 - float64(r.best)/float64(r.took))
	before := w.lanes
	switch {
	case w.probed > 0:
		w.lanes, w.probed = w.probed, 0
	case queue > manyQueue:
		w.isFound = true
		w.lanes = min(w.lanes, max(w.lanes/2, w.lanes-int(math.Ceil(queue-manyQueue)), leastWidth))
		why = fmt.Sprintf("%.0f requests queue at the CA", queue)
	case queue > fewQueue:
		w.isFound = true
	case w.short && !w.isFound:
		w.lanes *= 2
	case w.short:
		w.lanes++
	}
	if now.Sub(w.rotated) > bestFor {
		w.rotated = now
		for _, b := range w.best {
			b.now, b.before = time.Hour, b.now
		}
		if half := w.lanes / 2; half >= leastWidth {
			w.lanes, w.probed = half, w.lanes
		}
	}
	w.round, w.short = round{began: now}, false
	if w.lanes >= before {
		return ""
	}
	return why
}

// halve makes the width half of what it is, once a round, but not less than least.
func (w *width) halve(now time.Time, least int, reason string) (why string) {
	w.isFound, w.probed = true, 0
	if w.round.hasHalved && now.Sub(w.round.began) < time.Second {
		return ""
	}
	w.round, w.short = round{began: now, hasHalved: true}, false
	if half := max(w.lanes/2, least); half < w.lanes {
		w.lanes = half
		return reason
	}
	return ""
}

// limit bounds the width by what is configured.
func (w *width) limit(most int) int {
	w.lanes = max(min(w.lanes, most), 1)
	return w.lanes
}
