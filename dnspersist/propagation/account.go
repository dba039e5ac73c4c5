package propagation

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
	maxQuestions = 150 // those to resolvers included, retransmissions apart
	lookPatience = 30 * time.Second
)

// errOverBudget says that a look ended before everything was asked.
var errOverBudget error = overBudget{}

type overBudget struct{}

func (overBudget) Error() string { return "not asked, as it takes more than one look may" }

// Is makes it an errNotAsked: it says nothing about the servers that were not asked.
func (overBudget) Is(target error) bool { return target == errNotAsked }

// account is what a look, or the looks of one poll, have taken so far, and what they may take. All
// that is asked carries it in its context.
type account struct {
	limiter *limiter        // a pace that is obeyed, if there is one
	sent    func(all int64) // is called after each datagram and connection, if set

	mu        sync.Mutex
	questions int    // retransmissions apart
	over      string // what ran out first
	taken     usage  // until since
	active    int    // questions that wait for a server
	since     time.Time
}

// usage is what was taken.
type usage struct {
	servers, resolvers int64 // questions, retransmissions included
	octets             int64 // of answers over TCP
	waited             time.Duration
}

type accountKey struct{}

// chargeTo has what is asked under the context charged to a.
func (a *account) chargeTo(ctx context.Context) context.Context {
	return context.WithValue(ctx, accountKey{}, a)
}

// accountOf is the account that what is asked under ctx is charged to; one that nobody reads
// outside of a look.
func accountOf(ctx context.Context) *account {
	if a, ok := ctx.Value(accountKey{}).(*account); ok {
		return a
	}
	return new(account)
}

// begin begins a look: under the context its time is bounded, and all is charged to one account,
// a new one unless ctx has one.
func begin(ctx context.Context) (context.Context, *account, context.CancelFunc) {
	a := accountOf(ctx)
	ctx, cancel := context.WithTimeoutCause(a.chargeTo(ctx), lookPatience, errOverBudget)
	return ctx, a, cancel
}

// charge counts one question, and is an error if there is none left.
func (a *account) charge() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.over == "" && a.questions >= maxQuestions {
		a.over = fmt.Sprintf("%d questions were asked", maxQuestions)
	}
	if a.over != "" {
		return errOverBudget
	}
	a.questions++
	return nil
}

// end ends the look for a reason.
func (a *account) end(why string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.over = cmp.Or(a.over, why)
	return errOverBudget
}

// why is what ran out; empty if nothing did.
func (a *account) why(ctx context.Context) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.over == "" && errors.Is(context.Cause(ctx), errOverBudget) {
		return fmt.Sprintf("it had taken %s", lookPatience)
	}
	return a.over
}

// cutShort is an error if what was begun under ctx has to end, so that what was found so far is
// not all there is: it must not be kept.
func cutShort(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if accountOf(ctx).why(ctx) != "" {
		return errOverBudget
	}
	return nil
}

// send counts what is sent, and the time until answered is called. That it waits before, since
// much is asked by others, is not its name's fault.
func (a *account) send(resolver bool) (answered func(octets int)) {
	a.mu.Lock()
	if resolver {
		a.taken.resolvers++
	} else {
		a.taken.servers++
	}
	all := a.taken.servers + a.taken.resolvers
	if a.active++; a.active == 1 {
		a.since = time.Now()
	}
	a.mu.Unlock()
	if a.sent != nil {
		a.sent(all)
	}
	return func(octets int) {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.taken.octets += int64(octets)
		if a.active--; a.active == 0 {
			a.taken.waited += time.Since(a.since)
		}
	}
}

// usage is what was taken until now.
func (a *account) usage() usage {
	a.mu.Lock()
	defer a.mu.Unlock()
	u := a.taken
	if a.active > 0 {
		u.waited += time.Since(a.since)
	}
	return u
}
