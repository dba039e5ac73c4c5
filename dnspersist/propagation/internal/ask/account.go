package ask

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Bounds of one look. Whoever controls a zone chooses how many delegations, aliases and servers
// are on the way to its record, and each costs questions that all other names wait for. A look
// at a zone of 16 hosts of both families behind an alias takes under 100 questions when nothing
// is known yet, and half of that afterwards.
const (
	MaxQuestions = 150 // those to resolvers included, retransmissions apart
	LookPatience = 30 * time.Second
)

// ErrOverBudget is that of a look that ended before everything was asked.
var ErrOverBudget error = overBudget{}

type overBudget struct{}

func (overBudget) Error() string { return "not asked, as it takes more than one look may" }

// Is makes it an ErrNotAsked: it means nothing for the servers that were not asked.
func (overBudget) Is(target error) bool { return target == ErrNotAsked }

// Account counts what a look, or the looks of one poll, take, and bounds it. All that is asked
// carries it in its context.
type Account struct {
	Limiter *Limiter        // the pace of what is asked; may be nil
	Sent    func(all int64) // is called with the number of messages sent so far; may be nil

	mu     sync.Mutex
	over   string // what ran out first
	taken  Usage  // until since
	active int    // questions that wait for a server
	since  time.Time
}

// Usage is what was taken.
type Usage struct {
	Questions          int   // retransmissions apart
	Servers, Resolvers int64 // messages to them, retransmissions included
	Octets             int64 // of answers over TCP
	Waited             time.Duration
}

type accountKey struct{}

// ChargeTo returns a context under which all that is asked is charged to a.
func (a *Account) ChargeTo(ctx context.Context) context.Context {
	return context.WithValue(ctx, accountKey{}, a)
}

// AccountOf returns the account of ctx; outside of a look, one that nobody reads.
func AccountOf(ctx context.Context) *Account {
	if a, ok := ctx.Value(accountKey{}).(*Account); ok {
		return a
	}
	return new(Account)
}

// Begin begins a look: it returns a context that bounds its time and charges all to the account of
// ctx, or to a new one if ctx has none.
func Begin(ctx context.Context) (context.Context, *Account, context.CancelFunc) {
	a := AccountOf(ctx)
	ctx, cancel := context.WithTimeoutCause(a.ChargeTo(ctx), LookPatience, ErrOverBudget)
	return ctx, a, cancel
}

// charge counts one question, and is an error if there is none left.
func (a *Account) charge() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.over == "" && a.taken.Questions >= MaxQuestions {
		a.over = fmt.Sprintf("%d questions were asked", MaxQuestions)
	}
	if a.over != "" {
		return ErrOverBudget
	}
	a.taken.Questions++
	return nil
}

// End ends the look for a reason.
func (a *Account) End(why string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.over = cmp.Or(a.over, why)
	return ErrOverBudget
}

// Why is what ran out; empty if nothing did.
func (a *Account) Why(ctx context.Context) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.over == "" && errors.Is(context.Cause(ctx), ErrOverBudget) {
		return fmt.Sprintf("it had taken %s", LookPatience)
	}
	return a.over
}

// CutShort is an error if what was begun under ctx has to end, so that what was found so far is
// not all there is: it must not be kept.
func CutShort(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if AccountOf(ctx).Why(ctx) != "" {
		return ErrOverBudget
	}
	return nil
}

// send counts what is sent, and the time until answered is called. That it waits before, since
// much is asked by others, is not its name's fault.
func (a *Account) send(resolver bool) (answered func(octets int)) {
	a.mu.Lock()
	if resolver {
		a.taken.Resolvers++
	} else {
		a.taken.Servers++
	}
	all := a.taken.Servers + a.taken.Resolvers
	if a.active++; a.active == 1 {
		a.since = time.Now()
	}
	a.mu.Unlock()
	if a.Sent != nil {
		a.Sent(all)
	}
	return func(octets int) {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.taken.Octets += int64(octets)
		if a.active--; a.active == 0 {
			a.taken.Waited += time.Since(a.since)
		}
	}
}

// Usage is what was taken until now.
func (a *Account) Usage() Usage {
	a.mu.Lock()
	defer a.mu.Unlock()
	u := a.taken
	if a.active > 0 {
		u.Waited += time.Since(a.since)
	}
	return u
}

// maxServerLimits is the number of addresses from which those are forgotten whose rate is not used up.
const maxServerLimits = 256

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

// wait blocks until addr, empty for one without a rate of its own, may be asked or ctx is done.
// An error that wraps ErrNotAsked means that it would have been too late.
func (l *Limiter) wait(ctx context.Context, addr string) error {
	if l == nil {
		return ctx.Err()
	}
	// The server first: to wait for it must not use up what all share.
	if addr != "" {
		if err := waitFor(ctx, l.server(addr)); err != nil {
			return err
		}
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
