package ca

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/dnspersist/caddy-dnspersist/internal/walltime"
)

const (
	// longestQueue is how long an attempt waits for a lane: longer would hold one of CertMagic's jobs, and its
	// lock, for nothing.
	longestQueue = 20 * time.Second
	// queuedRetry is when a domain that has queued is tried again if nothing has called it.
	queuedRetry = 5 * time.Minute
	// firstWidth is how many lanes there are to a CA of which nothing is known.
	firstWidth = 8
)

// Lanes are the ways to all CAs, of the whole process: what is past the checks of DNS and not yet done is in a
// lane, and there are as many lanes to a CA as it bears.
type Lanes struct {
	mu  sync.Mutex
	cas map[string]*lanes
}

// NewLanes returns lanes in which nobody is.
func NewLanes() *Lanes { return &Lanes{cas: make(map[string]*lanes)} }

// LaneRequest is what wants a lane.
type LaneRequest struct {
	// CA is the directory URL, Account the account URL, Domain what the certificate is for.
	CA, Account, Domain string
	// NotAfter is the end of the certificate that is renewed, zero for a first one.
	NotAfter time.Time
}

// Lane is a place among those whom a CA works for.
type Lane struct{ ca *lanes }

// QueuedError is a domain for which no lane was free for long. It keeps its place in the queue.
type QueuedError struct {
	// CA is the directory URL, Domain what the certificate is for.
	CA, Domain string
	// RetryAt is when to try again at the latest.
	RetryAt time.Time

	place *laneWait
}

func (e *QueuedError) Error() string {
	return fmt.Sprintf("%s is in the queue for the CA %s, which works on other domains: it is tried again when its turn comes, at %s at the latest",
		e.Domain, e.CA, e.RetryAt.UTC().Format(time.RFC3339))
}

// OnTurn has fn called, once and on a goroutine of its own, when an attempt is worth it: at once if that is so
// already.
func (e *QueuedError) OnTurn(fn func()) {
	c := e.place.ca
	c.all.mu.Lock()
	defer c.all.mu.Unlock()
	if e.place.isCalled {
		go fn()
		return
	}
	e.place.onTurn = fn
}

// lanes are those to one CA.
type lanes struct {
	all   *Lanes
	inUse int
	// line are the attempts that wait, places those that have gone meanwhile.
	line, places []*laneWait
}

// laneWait is one that waits for a lane.
type laneWait struct {
	ca       *lanes
	request  LaneRequest
	granted  chan struct{}
	isCalled bool
	onTurn   func()
}

// Enter waits for a lane; a QueuedError says that none became free for long.
func (l *Lanes) Enter(ctx context.Context, r LaneRequest) (*Lane, error) {
	l.mu.Lock()
	c := cmp.Or(l.cas[r.CA], &lanes{all: l})
	l.cas[r.CA] = c
	w := &laneWait{ca: c, request: r, granted: make(chan struct{})}
	c.line = append(c.line, w)
	c.grant()
	l.mu.Unlock()
	timer := time.NewTimer(longestQueue)
	defer timer.Stop()
	select {
	case <-w.granted:
		return &Lane{ca: c}, nil
	case <-timer.C:
	case <-ctx.Done():
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.Index(c.line, w)
	if i < 0 { // granted just now
		return &Lane{ca: c}, nil
	}
	c.line = slices.Delete(c.line, i, i+1)
	if ctx.Err() != nil {
		return nil, fmt.Errorf("waiting for a lane to the CA for %s: %w", r.Domain, context.Cause(ctx))
	}
	c.places = append(c.places, w)
	return nil, &QueuedError{CA: r.CA, Domain: r.Domain, RetryAt: walltime.Now().Add(queuedRetry), place: w}
}

// Leave gives the lane back.
func (n *Lane) Leave() {
	n.ca.all.mu.Lock()
	defer n.ca.all.mu.Unlock()
	n.ca.inUse--
	n.ca.grant()
}

// grant gives free lanes to those who wait, and calls those who have gone where nobody does.
func (c *lanes) grant() {
	for c.inUse < firstWidth && len(c.line) > 0 {
		close(c.line[0].granted)
		c.line = c.line[1:]
		c.inUse++
	}
	for called := c.inUse + len(c.line); called < firstWidth && len(c.places) > 0; called++ {
		place := c.places[0]
		c.places = c.places[1:]
		if place.isCalled = true; place.onTurn != nil {
			go place.onTurn()
		}
	}
}
