package propagation

import (
	"cmp"
	"math/rand/v2"
	"time"
)

// pollTimeout bounds how long one poll keeps a worker.
const pollTimeout = 2 * time.Minute

// Bounds of a Scheduler.
const (
	pollFactor = 0.1 // of the time since the last event
	pollJitter = 0.1 // part of the interval, added or taken off at random
	maxWorkers = 32  // names asked for at a time

	globalRate    = 100.0 // queries per second, of all polls together
	perServerRate = 20.0  // queries per second to one address, and for the names of one registered domain
)

// SchedulerConfig configures a [Scheduler]. Zero values are the defaults.
//
// The interval is a tenth of the time since the last event (the begin of
// the watch, the first yes, a Poke), so that nobody waits much longer for our
// noticing than for the record itself, and a name that nobody cares for costs
// 350 questions on its first day and one a day after a week.
type SchedulerConfig struct {
	MinInterval time.Duration // between polls of one name. Default: 1.1 s
	MaxInterval time.Duration // in the first day; then an hour, after a week a day. Default: 5 min
}

func (c SchedulerConfig) withDefaults() SchedulerConfig {
	c.MinInterval = cmp.Or(c.MinInterval, 1100*time.Millisecond)
	c.MaxInterval = max(cmp.Or(c.MaxInterval, 5*time.Minute), c.MinInterval)
	return c
}

// interval is the time between polls when the last event is elapsed ago.
func (c SchedulerConfig) interval(elapsed time.Duration) time.Duration {
	const day = 24 * time.Hour
	switch {
	case elapsed >= 7*day:
		return max(day, c.MaxInterval)
	case elapsed >= day:
		return max(time.Hour, c.MaxInterval)
	}
	return min(max(time.Duration(float64(elapsed)*pollFactor), c.MinInterval), c.MaxInterval)
}

// maxEvents is how many events of a name count in an hour.
const maxEvents = 10

// event begins the fast pace anew, unless that happens too often: a record that comes and goes
// costs a poll each time, and whoever owns the zone can do it for ever.
func (w *watch) event(now time.Time) {
	if now.Sub(w.firstEvent) >= time.Hour {
		w.firstEvent, w.events = now, 0
	}
	if w.events++; w.events <= maxEvents {
		w.lastEvent = now
	}
}

// next is when w is due after a poll at now that resulted in rep.
func (s *Scheduler) next(w *watch, rep Report, now time.Time) time.Time {
	interval := s.cfg.interval(now.Sub(w.lastEvent))
	if w.pace > 1 && !w.urgent {
		interval = time.Duration(w.pace * float64(interval))
	}
	interval += time.Duration((2*rand.Float64() - 1) * s.jitter * float64(interval))
	due := now.Add(interval)
	if again := rep.LookAgainAt; !again.IsZero() && again.Before(due) {
		// Not at once, whatever the gate asks for: no poll may spin.
		due = later(again, now.Add(s.cfg.MinInterval/10))
	}
	if dear := w.questions - freeQueries; dear > 0 {
		// servers that have to be asked again and again are not asked more for it
		due = later(due, now.Add(time.Duration(dear)*time.Second))
	}
	return later(due, rep.NextLookNotBefore)
}

// freeQueries is how many queries a poll may take at any pace. What is above costs a second
// each, so that no name takes more than some 60 queries a minute.
const freeQueries = 4

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// dueQueue is a heap of watches, the one that is due first on top.
type dueQueue []*watch

func (q dueQueue) Len() int           { return len(q) }
func (q dueQueue) Less(i, j int) bool { return q[i].due.Before(q[j].due) }

func (q dueQueue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}

// Push implements [heap.Interface].
func (q *dueQueue) Push(x any) {
	w := x.(*watch)
	w.index = len(*q)
	*q = append(*q, w)
}

// Pop implements [heap.Interface].
func (q *dueQueue) Pop() any {
	old := *q
	w := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	w.index = -1
	return w
}
