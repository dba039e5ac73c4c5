package propagation

import (
	"container/heap"
	"context"
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
// half of the workers and of the questions at most (isBusy, over).
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
	index      int // in the queue; -1 once it is due, and while it is asked
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
		w = &watch{key: key, gate: g, due: now, lastEvent: now, offset: len(s.watches), domain: fair.Domain(t.host()), cost: unknownCost, last: 1, used: 1}
		if last := g.Report(); !last.When.IsZero() {
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
		w.due, w.hasTurn = later(time.Now().Add(s.cfg.MinInterval), w.gate.Report().NextLookNotBefore), false
		heap.Fix(&s.queue, w.index)
		s.wakeUp()
	}
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

// start starts what is due, and returns how long until there is more to do, if there will
// be before a wake-up.
func (s *Scheduler) start() (time.Duration, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		return 0, false
	}
	now := time.Now()
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
	for s.active < maxWorkers {
		if left := s.limiter.Left(); left < 1 {
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
