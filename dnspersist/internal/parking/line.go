package parking

import (
	"container/heap"
	"time"

	"go.uber.org/zap/zapcore"
)

// mostOnTheWay is how many domains that are retried may be on their way to the lanes of each CA.
const mostOnTheWay = 32

// line is the domains that are to be retried with a CA, and how many of them are on their way to its lanes. Each costs
// CertMagic a lock, a test of the storage and a key before it comes to a lane, and nothing bounds that where we
// begin it: of thousands whose time comes at once, as after an outage, few are begun, and those in need first. It
// is also all that a CA has to answer that is still down, for an attempt then never comes to a lane.
type line struct {
	onTheWay int
	waiting  []retry // a heap
}

// retry is an attempt that we begin for a domain.
type retry struct {
	entry *entry
	count int // of those of the entry
	need  time.Time
	why   string
	level zapcore.Level
}

// need is what the order in the line goes by: from when on somebody misses the certificate.
func (e *entry) need() time.Time {
	if e.hold.NotAfter.IsZero() {
		return e.since
	}
	return e.hold.Urgent
}

// advance begins the retries that there is room for.
func (r *Registry) advance(l *line) {
	now := time.Now()
	for l.onTheWay < mostOnTheWay && len(l.waiting) > 0 && !r.closed {
		next := heap.Pop(l).(retry)
		e := next.entry
		e.isInLine = false
		o := e.newest()
		if r.entries[e.key] != e || o == nil || now.Before(e.freeAt(now)) {
			continue
		}
		l.onTheWay++
		e.retries++
		e.line, e.busyUntil, next.count = l, now.Add(AttemptTimeout), e.retries
		r.later(func() { next.begin(o) })
	}
}

// leaveLine has the next domain begin: this one has come to a lane, or its retry has ended before.
func (e *entry) leaveLine() {
	if l := e.line; l != nil {
		e.line = nil
		l.onTheWay--
		e.registry.advance(l)
	}
}

// Len implements heap.Interface.
func (l *line) Len() int { return len(l.waiting) }

// Less implements heap.Interface.
func (l *line) Less(i, j int) bool { return l.waiting[i].need.Before(l.waiting[j].need) }

// Swap implements heap.Interface.
func (l *line) Swap(i, j int) { l.waiting[i], l.waiting[j] = l.waiting[j], l.waiting[i] }

// Push implements heap.Interface.
func (l *line) Push(x any) { l.waiting = append(l.waiting, x.(retry)) }

// Pop implements heap.Interface.
func (l *line) Pop() any {
	last := len(l.waiting) - 1
	x := l.waiting[last]
	l.waiting[last] = retry{}
	l.waiting = l.waiting[:last]
	return x
}
