package propagation

import (
	"context"
	"sync"
	"sync/atomic"

	"golang.org/x/time/rate"
)

// maxServerLimits bounds the number of addresses whose rate is remembered.
const maxServerLimits = 4096

// limiter keeps the queries of a process, and those to one server, under a
// rate. A nil limiter lets everything pass.
type limiter struct {
	global    *rate.Limiter
	perServer rate.Limit

	mu      sync.Mutex
	servers map[string]*rate.Limiter
}

func newLimiter(global, perServer float64) *limiter {
	return &limiter{
		global:    rate.NewLimiter(rate.Limit(global), max(1, int(global))),
		perServer: rate.Limit(perServer),
		servers:   make(map[string]*rate.Limiter),
	}
}

// wait blocks until addr may be asked or ctx is done.
func (l *limiter) wait(ctx context.Context, addr string) error {
	if l == nil {
		return ctx.Err()
	}
	// The server first: to wait for it must not use up what all share.
	if err := l.server(addr).Wait(ctx); err != nil {
		return err
	}
	return l.global.Wait(ctx)
}

func (l *limiter) server(addr string) *rate.Limiter {
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
	r := rate.NewLimiter(l.perServer, max(1, int(l.perServer)))
	l.servers[addr] = r
	return r
}

type spentKey struct{}

// withSpent counts the questions to authoritative servers under ctx.
func withSpent(ctx context.Context, n *atomic.Int32) context.Context {
	return context.WithValue(ctx, spentKey{}, n)
}

// spend counts one query.
func spend(ctx context.Context) {
	if n, ok := ctx.Value(spentKey{}).(*atomic.Int32); ok {
		n.Add(1)
	}
}

type limiterKey struct{}

// withLimiter makes the queries under ctx obey l.
func withLimiter(ctx context.Context, l *limiter) context.Context {
	return context.WithValue(ctx, limiterKey{}, l)
}

func limiterFrom(ctx context.Context) *limiter {
	l, _ := ctx.Value(limiterKey{}).(*limiter)
	return l
}
