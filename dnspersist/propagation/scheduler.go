package propagation

import (
	"cmp"
	"container/heap"
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/fair"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation/internal/ask"
)

// fullLookEvery is how many polls of a name of which nothing useful is heard there are for
// one that asks all servers, for the zone may have moved. All others ask one, in turns.
const fullLookEvery = 10

// Scheduler polls many names for a whole process: one goroutine that keeps
// the time, and workers only while something is asked. Create it with NewScheduler.
//
// A bad zone starves only itself. Names of one registered domain, and those at one name
// server, take turns at a pace (turn). Of the names whose turn it is, those that cost alike
// share alike: each class of costs has the same share of the questions that may be asked and,
// within it, names are taken oldest first (class, fair.Queue). So a name that is cheap to ask for
// is asked for at once whoever else waits. Dear names, and polls that turn out to be dear, have
// maxDear workers and dearRate questions a second at most (over). What all names may ask is more than ten thousand
// of them want by their schedule; where more wait, each is late by as much.
type Scheduler struct {
	cfg     SchedulerConfig
	jitter  float64
	limiter *ask.Limiter
	ctx     context.Context
	cancel  context.CancelFunc
	wake    chan struct{} // has room for one
	wg      sync.WaitGroup

	mu      sync.Mutex
	watches map[string]*watch
	queue   dueQueue                  // names that wait for their time
	due     fair.Queue[class, *watch] // names whose time has come
	planned time.Time                 // when due names are looked at next, zero if nothing is
	pace    fair.Pace[share]
	active  int // workers
	dear    int // of these, those that are busy with dear names
}

// watch is one name that is polled.
type watch struct {
	key     string
	checker *Checker
	target  Target
	gate    *Gate
	notify  func(Report)
	version uint64 // of target and notify: counts calls of Watch

	due        time.Time
	found      time.Time // when the way to the record was
	index      int       // in the queue; -1 once it is due, and while it is asked
	asked      bool
	hasTurn    bool // its due time is that of its turn
	lastEvent  time.Time
	events     int // since firstEvent, see event
	firstEvent time.Time
	polls      int
	urgent     bool // ask all servers next, as one has the record, or Poke was called
	poked      bool // while it was asked
	// missing are the addresses that lack the record while others have it.
	missing   []string
	pace      float64
	offset    int    // so that names begin with different servers
	domain    string // registered domain
	servers   []polled
	cost      float64 // of a poll, smoothed, see costOf
	last      float64 // of the last poll
	used      float64 // by the last poll, see costOfAll
	questions int     // of the last poll to name servers
	status    Status
	codes     []Code // of the last report
	lacking   []string
	values    []string
}

// NewScheduler starts a Scheduler; Close stops it.
func NewScheduler(cfg SchedulerConfig) *Scheduler {
	cfg = cfg.withDefaults()
	s := &Scheduler{
		cfg:     cfg,
		jitter:  pollJitter,
		limiter: ask.NewLimiter(globalRate, perServerRate),
		wake:    make(chan struct{}, 1),
		watches: make(map[string]*watch),
		pace:    fair.Pace[share]{Burst: time.Second},
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.wg.Go(s.run)
	return s
}

// Close stops polling and waits until nothing runs any more. It must not be
// called from a notify function.
func (s *Scheduler) Close() {
	s.cancel()
	s.wg.Wait()
}

// Watch polls t with c until stop is called, and calls notify when the status, the codes, the
// values or the servers that lack the record change and, once ready, after every poll. notify
// is called from a worker of the Scheduler, for one key never twice at a time, and should
// return soon; what was under way when stop was called may still be reported.
//
// A further Watch with the same key replaces c, t and notify, and makes the
// earlier stop do nothing; the schedule and the gate stay, so that a reload of
// the configuration does not begin the wait anew. If g is nil, c's NewGate is
// used.
func (s *Scheduler) Watch(key string, c *Checker, t Target, g *Gate, notify func(Report)) (stop func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.watches[key]
	if w == nil {
		if g == nil {
			g = c.NewGate()
		}
		now := time.Now()
		w = &watch{key: key, gate: g, due: now, lastEvent: now, offset: len(s.watches), domain: fair.Domain(cmp.Or(t.Host, t.host())), cost: unknownCost, last: 1, used: 1}
		if last := g.Report(); !last.When.IsZero() {
			w.found = last.When
			// Somebody has looked already, and had to find the zone.
			w.cost = last.cost / 2
			w.used = max(last.cost, 1)
			w.note(last)
			w.status = last.Status
			w.urgent = !last.FirstYes.IsZero()
			w.polls = 1
			w.due = s.next(w, last, now)
		}
		s.watches[key] = w
		heap.Push(&s.queue, w)
		s.wakeUp(w.due)
	}
	if w.checker != nil && !w.checker.finder.Finds(c.finder) {
		w.found = time.Time{}
	}
	w.checker, w.target, w.notify = c, t, notify
	w.version++
	version := w.version
	return func() { s.stop(w, version) }
}

func (s *Scheduler) stop(w *watch, version uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if w.version != version || s.watches[w.key] != w {
		return
	}
	delete(s.watches, w.key)
	if w.index >= 0 {
		heap.Remove(&s.queue, w.index)
	}
}

// Poke has all servers asked for key's name at once, and often again from now.
func (s *Scheduler) Poke(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.watches[key]
	if w == nil {
		return
	}
	now := time.Now()
	w.lastEvent, w.urgent, w.missing = now, true, nil
	if w.index < 0 {
		w.poked = w.asked
		return
	}
	w.due, w.hasTurn = later(now, w.gate.Report().NextLookNotBefore), false
	heap.Fix(&s.queue, w.index)
	s.wakeUp(w.due)
}

// Pace sets how much longer than usual the intervals of key's name are, 1 for the usual:
// another process may watch it, too. A Poke is obeyed at any pace.
func (s *Scheduler) Pace(key string, factor float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.watches[key]
	if w == nil || w.pace == factor {
		return
	}
	w.pace = factor
	if w.index >= 0 && factor <= 1 {
		w.due, w.hasTurn = later(time.Now().Add(s.cfg.MinInterval), w.gate.Report().NextLookNotBefore), false
		heap.Fix(&s.queue, w.index)
		s.wakeUp(w.due)
	}
}

// wakeUp has the names that are due looked at, if there is one before that is planned, or one that
// waits for a worker.
func (s *Scheduler) wakeUp(due time.Time) {
	if s.due.Len() == 0 && !s.planned.IsZero() && !due.Before(s.planned) {
		return
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// tick is how long names wait for others that are due soon after: to wake up costs more than to ask.
const tick = 50 * time.Millisecond

// run starts workers for the names that are due.
func (s *Scheduler) run() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	wake := s.wake
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-wake:
			wake = nil // at the end of the tick
			timer.Reset(tick)
			continue
		case <-timer.C:
		}
		wake = s.wake
		if wait, ok := s.start(); ok {
			timer.Reset(max(wait, tick))
		}
	}
}

// start starts what is due, and returns how long until there is more to do, if there will
// be before a wake-up.
func (s *Scheduler) start() (wait time.Duration, more bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		return 0, false
	}
	now := time.Now()
	defer func() {
		s.planned = time.Time{}
		if more {
			s.planned = now.Add(wait)
		}
	}()
	for len(s.queue) > 0 && !s.queue[0].due.After(now) {
		w := s.queue[0]
		if at := s.turn(w, now); at.After(now) {
			w.due = at
			heap.Fix(&s.queue, 0)
			continue
		}
		heap.Pop(&s.queue)
		s.due.Push(classOf(w.cost), w)
	}
	var again time.Time // when a name may be asked for that may not be now
	left := s.limiter.Left()
	for ; s.active < maxWorkers; left-- {
		if left < 1 {
			again = now.Add(time.Millisecond + time.Duration((1-left)/globalRate*float64(time.Second)))
			break
		}
		w, ok := s.due.Pop(func(c class) bool {
			if !c.isDear() {
				return true
			}
			free := s.pace.Next(dearShare, now)
			if free.After(now) {
				again = free
			}
			return !free.After(now) && s.dear < maxDear
		})
		if !ok {
			break
		}
		if s.watches[w.key] == w {
			s.launch(w, now)
		}
	}
	if s.due.Len() == 0 {
		again = time.Time{}
	}
	if len(s.queue) > 0 && (again.IsZero() || s.queue[0].due.Before(again)) {
		again = s.queue[0].due
	}
	return max(again.Sub(now), 0), !again.IsZero()
}

// launch has a worker ask for w.
func (s *Scheduler) launch(w *watch, now time.Time) {
	s.active++
	w.asked, w.hasTurn = true, false
	j := &job{watch: w, checker: w.checker, target: w.target, nth: -1, class: classOf(w.cost), expected: w.used}
	j.anew, j.mayMove = w.isOutdated(now), now.Sub(w.found) >= anewShared
	s.due.Charge(j.class, j.expected)
	if j.class.isDear() {
		j.dear = true
		s.dear++
		s.holdDear(now, j.expected)
	}
	if w.polls%fullLookEvery != 0 {
		j.again = w.missing
	}
	if !w.urgent && w.polls > 0 && (w.status != StatusBlocked || w.polls%fullLookEvery != 0) {
		j.nth = w.polls + w.offset
	}
	s.wg.Go(func() { s.work(j) })
}

// pollTimeout bounds how long one poll keeps a worker.
const pollTimeout = 2 * time.Minute

// Bounds of a Scheduler.
const (
	pollFactor = 0.1 // of the time since the last event
	pollJitter = 0.1 // part of the interval, added or taken off at random
	maxWorkers = 128 // names asked for at a time

	globalRate    = 400.0 // queries per second, of all polls together
	dearRate      = 50.0  // of dear names
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
