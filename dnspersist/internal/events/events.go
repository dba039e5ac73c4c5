// Package events reports to Caddy's events app what somebody may have to know: that a record is needed, wrong,
// complete, gone or ending, that one was published, that a CA asks for other records, and that an account
// is lost. Without it whoever is not at the log learns of them when a certificate has run out.
//
// There is one event for each record and state: a domain and its wildcard share a record, and a wait that
// goes on over a reload, or begins again, is no news. What comes before a configuration runs waits for it.
// Events are emitted by a goroutine of their own, one after another, for a handler may take its time:
// neither the registry nor an attempt ever waits for one. At most 30 a minute are emitted, and six an
// hour about one record; the rest is one event with a count. Of domains that strangers have asked for there is
// one a minute at most, a count if it is about several.
//
// Nothing is taken note of while a configuration runs in which nobody wants events. The next one in which somebody
// does has all that waits then reported, whatever was reported before: whoever has just come to listen knows none of it.
package events

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/parking"
)

const (
	// mostPerMinute is how many events are emitted in a minute, and mostAlone how many of them are
	// about one thing: those that have the rest in one need room.
	mostPerMinute = 30
	mostAlone     = 24
	// mostWaiting bounds the events that wait to be emitted.
	mostWaiting = 1024
	// joinedEvery is the time between two events of one name that have the rest.
	joinedEvery = time.Minute
	// defaultWindow is how long an event waits for the other domains of its record.
	defaultWindow = 2 * time.Second
	// stopWithin is how long a configuration that ends waits for a handler that is at work.
	stopWithin = 2 * time.Second
)

// event is an event that was not emitted yet.
type event struct {
	name string
	// at is when it happened; that of many, when it may be emitted.
	at      time.Time
	domains []string
	// code is what is wrong with what is published.
	code string
	// status or notice explain it; nil if nothing more is known.
	status *parking.Status
	notice *acmepersist.Notice
	// record is nil if it is about none; it belongs to the tracker, and the emitter has the copies.
	record  *tracked
	key     recordKey
	account string
	// count is how many events it is in the place of, zero for itself.
	count    int
	onDemand bool
	isOfMany bool // it has the rest of its name
}

// isBack reports whether it is about a record that is published again.
func (e *event) isBack() bool {
	return e.notice != nil && e.notice.Kind == acmepersist.NoticeFound && e.notice.WasMissing
}

// group is what the events have in common that are joined.
type group struct {
	name     string
	onDemand bool
}

// joined is the rest of the events of a group.
type joined struct {
	event
	// only is the one event that it has, nil if it has more: that one needs no number.
	only   *event
	lastAt time.Time // when one was emitted last
}

// Registry has the domains that wait.
type Registry interface {
	Subscribe(notify func(domain string, now []parking.Status)) (cancel func())
}

// Center has the events of a process, over reloads.
type Center struct {
	registry Registry

	mu      sync.Mutex
	tracker *tracker
	queue   []*event
	joined  map[group]*joined
	emitted []time.Time // of the last minute
	outlet  *outlet     // nil while no configuration runs
	// cancel ends the subscription; nil while nobody wants events.
	cancel func()
}

// New returns a center for a registry.
func New(r Registry) *Center {
	c := &Center{registry: r}
	c.begin()
	return c
}

// begin begins to take note.
func (c *Center) begin() {
	c.mu.Lock()
	c.joined, c.tracker = make(map[group]*joined), newTracker(c.add)
	c.mu.Unlock()
	cancel := c.registry.Subscribe(func(domain string, now []parking.Status) {
		c.take(func(t *tracker, at time.Time) { t.update(domain, now, at) })
	})
	c.mu.Lock()
	c.cancel = cancel
	c.mu.Unlock()
}

// Rest is for a configuration in which nobody wants events: then nothing is taken note of, and what was is forgotten.
func (c *Center) Rest() {
	c.mu.Lock()
	cancel, outlet := c.cancel, c.outlet
	c.cancel, c.outlet, c.tracker, c.queue = nil, nil, nil, nil
	c.mu.Unlock()
	if outlet != nil {
		outlet.end()
	}
	if cancel != nil {
		cancel()
	}
}

// Close ends it.
func (c *Center) Close() { c.Rest() }

// Notice takes what an issuer has found. It waits for nothing.
func (c *Center) Notice(n acmepersist.Notice) {
	c.take(func(t *tracker, at time.Time) { t.notice(n, at) })
}

// take has the tracker take something, and whoever emits look at what came of it.
func (c *Center) take(what func(t *tracker, at time.Time)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.tracker == nil {
		return
	}
	what(c.tracker, time.Now())
	if c.outlet != nil {
		c.outlet.wake()
	}
}

// add is the tracker's emit.
func (c *Center) add(e *event) {
	e.at = time.Now()
	if len(c.queue) >= mostWaiting {
		c.join(e, time.Now())
		return
	}
	c.queue = append(c.queue, e)
}

func (c *Center) window() time.Duration {
	if c.outlet == nil {
		return defaultWindow
	}
	return c.outlet.window
}

// join adds an event to the rest.
func (c *Center) join(e *event, now time.Time) {
	key := group{e.name, e.onDemand}
	j := c.joined[key]
	if j == nil {
		j = new(joined)
		c.joined[key] = j
	}
	if j.count == 0 {
		j.event = event{name: e.name, onDemand: e.onDemand, isOfMany: true, at: now.Add(c.window())}
		if again := j.lastAt.Add(joinedEvery); again.After(j.at) {
			j.at = again
		}
	}
	if j.only = nil; j.count == 0 {
		j.only = e
	}
	j.count += max(e.count, 1)
	for _, domain := range e.domains {
		if len(j.domains) < mostDomains && !slices.Contains(j.domains, domain) {
			j.domains = append(j.domains, domain)
		}
	}
}

// next takes the event that is to be emitted now. If there is none, wait is how long to wait for one, negative for
// ever.
func (c *Center) next(now time.Time) (e *event, wait time.Duration) {
	var due []time.Time
	if at := c.tracker.release(now); !at.IsZero() {
		due = append(due, at)
	}
	c.emitted = slices.DeleteFunc(c.emitted, func(at time.Time) bool { return now.Sub(at) >= time.Minute })
	for len(c.queue) > 0 && !c.queue[0].at.Add(c.window()).After(now) {
		e := c.queue[0]
		if c.queue = c.queue[1:]; e.onDemand || len(c.emitted) >= mostAlone {
			c.join(e, now)
			continue
		}
		c.emitted = append(c.emitted, now)
		e.complete()
		return e, 0
	}
	if len(c.queue) > 0 {
		due = append(due, c.queue[0].at.Add(c.window()))
	}
	for _, j := range c.joined {
		at := j.at
		if room := len(c.emitted) - mostPerMinute; room >= 0 {
			if free := c.emitted[room].Add(time.Minute); free.After(at) {
				at = free
			}
		}
		switch {
		case j.count == 0:
		case at.After(now):
			due = append(due, at)
		default:
			rest := j.event
			e := cmp.Or(j.only, &rest)
			j.event, j.only, j.lastAt = event{}, nil, now
			c.emitted = append(c.emitted, now)
			e.complete()
			return e, 0
		}
	}
	if len(due) == 0 {
		return nil, -1
	}
	return nil, slices.MinFunc(due, time.Time.Compare).Sub(now)
}

// complete copies the record, and adds the domains that have come to need it while the event waited.
func (e *event) complete() {
	if e.record == nil {
		return
	}
	e.key, e.account = e.record.recordKey, e.record.account
	for domain, v := range e.record.views {
		if v == e.record.reported && names[v.state] == e.name && !slices.Contains(e.domains, domain) {
			e.domains = append(e.domains, domain)
		}
	}
}

// Emit emits an event. It may take its time.
type Emit func(name string, data map[string]any)

// outlet is where a configuration emits events.
type outlet struct {
	emit   Emit
	window time.Duration
	woken  chan struct{}
	quit   chan struct{}
	once   sync.Once
	done   chan struct{}
}

func (o *outlet) wake() {
	select {
	case o.woken <- struct{}{}:
	default:
	}
}

func (o *outlet) end() { o.once.Do(func() { close(o.quit) }) }

// Start has events be emitted by a configuration that runs, in the place of the one before it. window is how long
// an event waits for the other domains of its record, zero for the default. stop ends that, and
// waits a little for a handler that is at work; what was not emitted waits for the next one.
func (c *Center) Start(emit Emit, window time.Duration) (stop func()) {
	o := &outlet{emit: emit, window: cmp.Or(window, defaultWindow), woken: make(chan struct{}, 1), quit: make(chan struct{}), done: make(chan struct{})}
	c.mu.Lock()
	isResting, before := c.cancel == nil, c.outlet
	c.outlet = o
	c.mu.Unlock()
	if before != nil {
		before.end()
	}
	if isResting {
		c.begin()
	}
	go c.run(o)
	return func() {
		c.mu.Lock()
		if c.outlet == o {
			c.outlet = nil
		}
		c.mu.Unlock()
		o.end()
		select {
		case <-o.done:
		case <-time.After(stopWithin):
		}
	}
}

// run emits events for as long as the outlet is the newest one.
func (c *Center) run(o *outlet) {
	defer close(o.done)
	for {
		c.mu.Lock()
		if c.outlet != o || c.tracker == nil {
			c.mu.Unlock()
			return
		}
		e, wait := c.next(time.Now())
		c.mu.Unlock()
		if e != nil {
			o.emit(e.name, e.data(time.Now()))
			continue
		}
		var timer <-chan time.Time
		if wait >= 0 {
			timer = time.After(wait)
		}
		select {
		case <-timer:
		case <-o.woken:
		case <-o.quit:
			return
		}
	}
}
