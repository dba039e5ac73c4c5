package ask

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
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
