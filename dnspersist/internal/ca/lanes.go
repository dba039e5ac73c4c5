package ca

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/fair"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
	"github.com/dnspersist/caddy-dnspersist/internal/walltime"
)

const (
	// longestQueue is how long an attempt waits for a lane: longer would hold one of CertMagic's jobs, and its
	// lock, for nothing.
	longestQueue = 20 * time.Second
	// LaneHold is how long a lane is held while the CA works without an answer: validations and certificates take
	// a CA a second or two, and longer only where somebody's servers do not answer it.
	LaneHold = 3 * time.Second
	// SlowValidation is when a validation counts as one of a domain whose servers do not answer the CA.
	SlowValidation = 10 * time.Second
	// queuedFirst and queuedMost bound when a domain that has queued is tried again if nothing has called it.
	queuedFirst, queuedMost = 5 * time.Minute, time.Hour
	// calledFor is how long a domain that was called has to come, callAhead how many are called for each lane, for
	// they come after a look at DNS, and soon is when there has to be room in the order window for them.
	calledFor, callAhead, soon = time.Minute, 4, 10 * time.Second
	// mostPlaces bounds the domains that keep a place in the queue to a CA, mostDomains the registered domains of
	// which it is remembered how their last validation ended.
	mostPlaces, mostDomains = 10_000, 16_384
	// sweepEvery is how often places are looked through for those that nobody has come back to.
	sweepEvery = time.Minute
	// manyTimeouts is in how many registered domains, good ones before, validations time out within timeoutsFor
	// if it is the CA that cannot look them up.
	manyTimeouts, timeoutsFor = 3, time.Minute
	// DefaultMostLanes is the most lanes to a CA if nothing else is configured.
	DefaultMostLanes = 64
)

// Lanes are the ways to all CAs, of the whole process: what is past the checks of DNS and not yet done is in a
// lane, and there are as many lanes to a CA as it bears. Without them a fleet of standing records would throw
// all its orders at the CA at once, whose own look-ups then time out, and each failure costs a domain a minute.
//
// A lane is granted to who waits in this order: who has a lane to take again; renewals by the end of the
// certificate, and first certificates as they have come, one of them for each two renewals. A registered domain
// whose last validation failed, or took long, has one lane of its own beside these until one succeeds: it takes
// none from others. The order window is part of the queue: nobody is granted a lane while there is no room in it,
// and a registered domain that has used its share of it is passed over while others wait.
type Lanes struct {
	mu       sync.Mutex
	cas      map[string]*lanes
	isClosed bool
}

// NewLanes returns lanes in which nobody is.
func NewLanes() *Lanes { return &Lanes{cas: make(map[string]*lanes)} }

// LaneRequest is what wants a lane.
type LaneRequest struct {
	// CA is the directory URL, Account the account URL, Domain what the certificate is for.
	CA, Account, Domain string
	// NotAfter is the end of the certificate that is renewed, zero for a first one.
	NotAfter time.Time
	// Since is when the attempt has begun: of first certificates the attempt that began first goes first, however often
	// it gives its lane back to look at DNS anew. Zero for now.
	Since time.Time
	// Window bounds the orders of the account. HasOrder is true if an order was made already, which needs no room
	// in it, and IsDone if the CA has validated it: then others are let by only for the certificate.
	Window           OrderWindow
	HasOrder, IsDone bool
	// Most is the most lanes that may be in use: of those who wait or are in one the smallest counts.
	Most int
	// Longest is how long to wait for a lane; zero for 20 s. IsPatient is true for who waits without a limit.
	Longest   time.Duration
	IsPatient bool
}

func (r LaneRequest) registered() string { return fair.Domain(record.Base(r.Domain)) }

// QueuedError is a domain for which no lane was free for long. It keeps its place in the queue.
type QueuedError struct {
	// CA is the directory URL, Domain what the certificate is for.
	CA, Domain string
	// Window is what lets no order through now; zero if that is the CA, which works on others.
	Window OrderWindow
	// RetryAt is when to try again at the latest.
	RetryAt time.Time

	place *laneWait
}

func (e *QueuedError) Error() string {
	why := "which works on as many domains as it bears"
	if e.Window.Orders > 0 {
		why = fmt.Sprintf("where rate_limit lets no more orders through than %d in %s", e.Window.Orders, e.Window.Per)
	}
	return fmt.Sprintf("%s is in the queue for the CA %s, %s: it is tried again when its turn comes, at %s at the latest",
		e.Domain, e.CA, why, e.RetryAt.UTC().Format(time.RFC3339))
}

// OnTurn has fn called, once and on a goroutine of its own, when an attempt is worth it: at once if that is so
// already.
func (e *QueuedError) OnTurn(fn func()) {
	all := e.place.ca.all
	all.mu.Lock()
	defer all.mu.Unlock()
	if !e.place.calledAt.IsZero() {
		go fn()
		return
	}
	e.place.ca.list(e.place, fn)
	e.place.ca.call(time.Now())
}

// lanes are those to one CA.
type lanes struct {
	all   *Lanes
	width width
	// held are those in a lane, own how many have the one of their registered domain.
	held []*Lane
	own  int
	// present are the attempts that wait: no more than CertMagic has jobs, and visitors.
	present []*laneWait
	// places are those of attempts that have gone. Those to be called are listed, and called are those that were, the
	// earliest first. Places that are too old were last dropped at sweptAt.
	places  map[placeKey]*laneWait
	listed  map[listKey][]*laneWait
	called  []*laneWait
	sweptAt time.Time
	// most is what was configured by those who waited last.
	most int
	// come and turns count who has come, and whose turn it was.
	come, turns int
	windows     map[windowKey]*window
	domains     map[string]*laneDomain
	timeouts    []timeout
	timer       *time.Timer
}

// laneDomain is what is remembered of a registered domain.
type laneDomain struct {
	isGood, isFailing bool
	inUse             int // lanes of its own
}

// timeout is a validation of a domain, good before, that has ended with the CA's DNS look-ups.
type timeout struct {
	domain string
	at     time.Time
}

// laneWait is one that waits for a lane.
type laneWait struct {
	ca      *lanes
	request LaneRequest
	domain  string // the registered one
	window  *window
	since   time.Time
	come    int // decides between those of the same time
	// granted is closed when lane is there.
	granted chan struct{}
	lane    *Lane
	// dropAt is when the place is dropped of an attempt that has gone without its lane.
	dropAt   time.Time
	calledAt time.Time
	onTurn   func()
	// isListedFailing is true while it is listed among those of failing domains.
	isListedFailing bool
}

// Lane is a place among those whom a CA works for.
type Lane struct {
	ca      *lanes
	request LaneRequest
	domain  string
	window  *window
	own     *laneDomain // nil unless it is that of the registered domain
	hasRoom bool        // in the window, for an order that is not made yet
}

// to returns the lanes to a CA.
func (l *Lanes) to(directory string) *lanes {
	c := l.cas[directory]
	if c == nil {
		c = &lanes{
			all: l, width: newWidth(), most: DefaultMostLanes, windows: make(map[windowKey]*window), domains: make(map[string]*laneDomain),
			places: make(map[placeKey]*laneWait), listed: make(map[listKey][]*laneWait),
		}
		l.cas[directory] = c
	}
	return c
}

// Enter waits for a lane; a QueuedError says that none became free for long, that the order window lets nobody
// through for long, or that the lane of a registered domain that fails is in use: its names hold no jobs for that.
func (l *Lanes) Enter(ctx context.Context, r LaneRequest) (*Lane, error) {
	r.Most = cmp.Or(r.Most, DefaultMostLanes)
	l.mu.Lock()
	now := time.Now()
	c := l.to(r.CA)
	w := c.join(r, now)
	c.grant(now)
	if w.lane == nil && !r.IsPatient && (c.isFailing(w) || !w.hasRoom(now) && w.window.until(now) > cmp.Or(r.Longest, longestQueue)) {
		defer l.mu.Unlock()
		return nil, c.postpone(w, now)
	}
	l.mu.Unlock()
	var timeUp <-chan time.Time
	if !r.IsPatient {
		timer := time.NewTimer(cmp.Or(r.Longest, longestQueue))
		defer timer.Stop()
		timeUp = timer.C
	}
	select {
	case <-w.granted:
		return w.lane, nil
	case <-timeUp:
	case <-ctx.Done():
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if w.lane != nil { // granted just now
		return w.lane, nil
	}
	now = time.Now()
	if ctx.Err() != nil {
		c.leavePlace(w, now, calledFor) // after a reload another attempt comes for the domain
		c.grant(now)                    // others are not passed over for it any more
		return nil, fmt.Errorf("waiting for a lane to the CA for %s: %w", r.Domain, context.Cause(ctx))
	}
	return nil, c.postpone(w, now)
}

// join has an attempt wait, at the place that an earlier one has left.
func (c *lanes) join(r LaneRequest, now time.Time) *laneWait {
	w := &laneWait{ca: c, request: r, domain: r.registered(), window: c.windowOf(r), since: cmp.Or(r.Since, now), come: c.come, granted: make(chan struct{})}
	c.come++
	if former := c.places[w.place()]; former != nil {
		if former.since.Before(w.since) {
			w.since, w.come = former.since, former.come
		}
		c.drop(former)
	}
	c.present = append(c.present, w)
	return w
}

// postpone has an attempt go without a lane, and keeps its place.
func (c *lanes) postpone(w *laneWait, now time.Time) error {
	e := &QueuedError{CA: w.request.CA, Domain: w.request.Domain, place: w}
	before := time.Duration(len(c.present) + len(c.places))
	wait := queuedFirst + before*time.Second
	if !w.hasRoom(now) {
		e.Window = w.request.Window
		wait = queuedFirst + before*e.Window.interval()
	}
	wait = min(wait, queuedMost)
	e.RetryAt = walltime.Now().Add(wait)
	c.leavePlace(w, now, wait+calledFor)
	c.grant(now)
	return e
}

// Leave gives the lane back, and the room in the window for an order that was not made.
func (n *Lane) Leave() {
	l, c := n.ca.all, n.ca
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.Index(c.held, n)
	if i < 0 {
		return
	}
	now := time.Now()
	c.held = slices.Delete(c.held, i, i+1)
	if n.own != nil {
		n.own.inUse--
		c.own--
	}
	if n.hasRoom {
		n.window.giveBack(n.domain, now)
	}
	c.grant(now)
}

// Order notes that an order is made in the lane. One whose kept order is of no use any more takes its room in the
// window in advance.
func (n *Lane) Order() {
	n.ca.all.mu.Lock()
	defer n.ca.all.mu.Unlock()
	if !n.hasRoom && n.window != nil {
		n.window.take(n.domain, time.Now())
	}
	n.hasRoom = false
}

// Validation is how one has gone.
type Validation int

// How a validation goes.
const (
	// ValidationGood: the CA has found the record.
	ValidationGood Validation = iota
	// ValidationSlow: it has not decided for long.
	ValidationSlow
	// ValidationBad: it has refused.
	ValidationBad
	// ValidationTimeout: it has refused because its look-ups had no answer.
	ValidationTimeout
)

// Validated notes how a validation has gone. Why is not empty if the width has shrunk.
func (l *Lanes) Validated(r LaneRequest, v Validation) (lanes int, why string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c, now := l.to(r.CA), time.Now()
	domain := r.registered()
	d := c.domains[domain]
	if d == nil {
		c.forget()
		d = new(laneDomain)
		c.domains[domain] = d
	}
	wasGood := d.isGood || !d.isFailing && !r.NotAfter.IsZero()
	wasFailing := d.isFailing
	if d.isGood, d.isFailing = v == ValidationGood, v != ValidationGood; d.isFailing != wasFailing {
		c.relist(domain)
	}
	if v == ValidationTimeout && wasGood {
		c.timeouts = slices.DeleteFunc(c.timeouts, func(t timeout) bool { return t.domain == domain || now.Sub(t.at) > timeoutsFor })
		if c.timeouts = append(c.timeouts, timeout{domain, now}); len(c.timeouts) >= manyTimeouts {
			c.timeouts = nil
			why = c.width.halve(now, leastWidth, fmt.Sprintf("validations in %d registered domains, good ones before, have timed out", manyTimeouts))
		}
	}
	c.grant(now)
	return c.width.lanes, why
}

// forget makes room for another registered domain.
func (c *lanes) forget() {
	for domain, d := range c.domains {
		if len(c.domains) < mostDomains {
			return
		}
		if d.inUse == 0 {
			delete(c.domains, domain)
		}
	}
}

// State returns how many lanes to a CA are in use, and how many there are; zero for a CA that nobody has wanted one to.
func (l *Lanes) State(directory string) (inUse, limit int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.cas[directory]
	if c == nil {
		return 0, 0
	}
	return len(c.held), min(c.width.lanes, c.most)
}

// Close gives up all places: nobody is called any more. Attempts that still come are granted lanes as before.
func (l *Lanes) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.isClosed = true
	for _, c := range l.cas {
		c.call(time.Now())
	}
}

// GiveUp gives the place up, for a domain that nobody wants any more: others would be called a minute later for it.
func (e *QueuedError) GiveUp() {
	all := e.place.ca.all
	all.mu.Lock()
	defer all.mu.Unlock()
	e.place.ca.drop(e.place)
}

// asked and answered note a request to the CA, for the width.
func (l *Lanes) asked(directory string, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.to(directory).width.asked(now)
}

func (l *Lanes) answered(directory, step string, sent time.Time, outcome requestOutcome) (lanes int, why string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c, now := l.to(directory), time.Now()
	before := c.width.lanes
	why = c.width.answered(step, sent, now, outcome)
	if c.width.lanes > before {
		c.grant(now)
	}
	return c.width.lanes, why
}
