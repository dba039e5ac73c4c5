package ask

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/time/rate"
)

// maxServerLimits bounds the number of addresses whose rate is remembered.
const maxServerLimits = 4096

// Limiter keeps the queries of a process, and those to one server, under a
// rate. A nil Limiter lets everything pass.
type Limiter struct {
	global    *rate.Limiter
	perServer rate.Limit
	burst     int // to one server

	mu      sync.Mutex
	servers map[string]*rate.Limiter
}

// NewLimiter returns a Limiter for so many questions a second in all, and to one server.
func NewLimiter(global, perServer float64) *Limiter {
	return &Limiter{
		global:    rate.NewLimiter(rate.Limit(global), max(1, int(global))),
		perServer: rate.Limit(perServer),
		burst:     max(1, int(perServer)),
		servers:   make(map[string]*rate.Limiter),
	}
}

// Bounds of what is asked outside of a Scheduler, which has its own: not a pace, but for
// thousands of names that start together in one zone. A fleet of 500 sites takes four times
// as long to its certificates with a tenth of them.
const (
	lookRate   = 500  // questions per second to one address
	lookBurst  = 2000 // to one address
	lookGlobal = 5000
)

// newLookLimiter is shared by all that is asked through one exchanger.
func newLookLimiter() *Limiter {
	l := NewLimiter(lookGlobal, lookRate)
	l.burst = lookBurst
	return l
}

// ErrNotAsked means nothing for a server: its turn did not come in time.
var ErrNotAsked = errors.New("not asked, as too much is asked at present")

// wait blocks until addr may be asked or ctx is done. An error that wraps ErrNotAsked says
// that it would have been too late.
func (l *Limiter) wait(ctx context.Context, addr string) error {
	if l == nil {
		return ctx.Err()
	}
	// The server first: to wait for it must not use up what all share.
	if err := waitFor(ctx, l.server(addr)); err != nil {
		return err
	}
	return l.waitForAll(ctx)
}

// waitForAll is wait where the address has no rate of its own.
func (l *Limiter) waitForAll(ctx context.Context) error {
	if l == nil {
		return ctx.Err()
	}
	return waitFor(ctx, l.global)
}

// Left is how many questions may be asked now; it is negative while some wait.
func (l *Limiter) Left() float64 { return l.global.Tokens() }

func waitFor(ctx context.Context, r *rate.Limiter) error {
	err := r.Wait(ctx)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return fmt.Errorf("%w: %w", ErrNotAsked, err)
}

func (l *Limiter) server(addr string) *rate.Limiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r, ok := l.servers[addr]; ok {
		return r
	}
	if len(l.servers) >= maxServerLimits {
		// A full bucket carries no information.
		for a, r := range l.servers {
			if r.Tokens() >= float64(r.Burst()) {
				delete(l.servers, a)
			}
		}
	}
	r := rate.NewLimiter(l.perServer, l.burst)
	l.servers[addr] = r
	return r
}
