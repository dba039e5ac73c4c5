package propagation

import (
	"container/heap"
	"context"
	"sync"
	"time"
)

// fullLookEvery is how many polls of a name of which nothing useful is heard there are for
// one that asks all servers, for the zone may have moved. All others ask one, in turns.
const fullLookEvery = 10

// Scheduler polls many names for a whole process: one goroutine that keeps
// the time, and workers only while something is asked. Names that are due are
// taken oldest first. Create it with NewScheduler.
type Scheduler struct {
	cfg     SchedulerConfig
	limiter *limiter
	ctx     context.Context
	cancel  context.CancelFunc
	wake    chan struct{} // has room for one
	wg      sync.WaitGroup

	mu      sync.Mutex
	watches map[string]*watch
	zones   map[string]int // how many watches there are in each zone
	queue   dueQueue
	active  int // workers
}

// watch is one name that is polled.
type watch struct {
	key     string
	checker *Checker
	target  Target
	gate    *Gate
	notify  func(Report)
	version uint64 // of target and notify: counts calls of Watch

	due       time.Time
	index     int // in the queue; -1 while it is asked
	lastEvent time.Time
	polls     int
	urgent    bool // ask all servers next, as one has the record, or Poke was called
	poked     bool // while it was asked
	// missing are the addresses that lack the record while others have it.
	missing []string
	pace    float64
	zone    string
	offset  int // so that names begin with different servers
	spent   int // queries of the last poll; of the worker that polls, like the gate
	status  Status
	codes   []Code // of the last report
	lacking []string
	values  []string
}

// NewScheduler starts a Scheduler; Close stops it.
func NewScheduler(cfg SchedulerConfig) *Scheduler {
	cfg = cfg.withDefaults()
	s := &Scheduler{
		cfg:     cfg,
		limiter: newLimiter(cfg.GlobalRate, cfg.PerServerRate),
		wake:    make(chan struct{}, 1),
		watches: make(map[string]*watch),
		zones:   make(map[string]int),
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

// Watch polls t with c until stop is called, and tells notify when the status, the codes, the
// values or the servers that lack the record change and, once ready, after every poll. notify
// is called from a worker of the Scheduler, for one key never twice at a time, and should
// return soon; what was under way when stop was called may still be told.
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
		w = &watch{key: key, gate: g, due: now, lastEvent: now, offset: len(s.watches)}
		if last := g.Report(); !last.When.IsZero() {
			// Somebody has looked already.
			s.move(w, last.Zone)
			w.status = last.Status
			w.urgent = !last.FirstYes.IsZero()
			w.polls = 1
			w.due = s.next(w, last, now)
		}
		s.watches[key] = w
		heap.Push(&s.queue, w)
		s.wakeUp()
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
	s.move(w, "")
	if w.index >= 0 {
		heap.Remove(&s.queue, w.index)
	}
}

// move counts a watch in its zone.
func (s *Scheduler) move(w *watch, zone string) {
	if w.zone == zone {
		return
	}
	if w.zone != "" {
		if s.zones[w.zone]--; s.zones[w.zone] == 0 {
			delete(s.zones, w.zone)
		}
	}
	if w.zone = zone; zone != "" {
		s.zones[zone]++
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
		w.poked = true
		return
	}
	w.due = later(now, w.gate.Report().NextLookNotBefore)
	heap.Fix(&s.queue, w.index)
	s.wakeUp()
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
		w.due = later(time.Now().Add(s.cfg.MinInterval), w.gate.Report().NextLookNotBefore)
		heap.Fix(&s.queue, w.index)
		s.wakeUp()
	}
}

// Report returns the last report on key's name, and whether it is watched.
// Before the first poll its When is zero.
func (s *Scheduler) Report(key string) (Report, bool) {
	s.mu.Lock()
	w := s.watches[key]
	s.mu.Unlock()
	if w == nil {
		return Report{}, false
	}
	return w.gate.Report(), true
}

// Len returns how many names are watched.
func (s *Scheduler) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.watches)
}

func (s *Scheduler) wakeUp() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// run starts workers for the names that are due.
func (s *Scheduler) run() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		if wait, ok := s.start(); ok {
			timer.Reset(wait)
		} else {
			timer.Stop()
		}
		select {
		case <-s.ctx.Done():
			return
		case <-s.wake:
		case <-timer.C:
		}
	}
}

// start starts what is due, and returns how long until something is, if
// anything will be before a wake-up.
func (s *Scheduler) start() (time.Duration, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for len(s.queue) > 0 && s.active < s.cfg.Workers && s.ctx.Err() == nil {
		w := s.queue[0]
		if w.due.After(now) {
			return w.due.Sub(now), true
		}
		heap.Pop(&s.queue)
		s.active++
		job := job{watch: w, checker: w.checker, target: w.target, nth: -1}
		if w.polls%fullLookEvery != 0 {
			job.again = w.missing
		}
		if !w.urgent && w.polls > 0 && (w.status != StatusBlocked || w.polls%fullLookEvery != 0) {
			job.nth = w.polls + w.offset
		}
		s.wg.Go(func() { s.work(job) })
	}
	return 0, false
}
