package propagation

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// Bounds of one look. Whoever controls a zone chooses how many delegations, aliases and servers
// are on the way to its record, and each costs questions that all other names wait for. A look
// at a zone of 16 hosts of both families behind an alias takes under 100 questions when nothing
// is known yet, and half of that afterwards.
const (
	maxQuestions = 150 // those to resolvers included, retransmissions apart
	maxCuts      = 8   // zones on the way down from the first one that was found for a name
	maxAliases   = 8   // CNAME records; common resolvers follow about as many
	maxZoneHosts = 13  // host names of one zone whose addresses are looked up
	maxUnnamed   = 4   // hosts without any address, before no further one is looked up
	lookPatience = 30 * time.Second
)

// errOverBudget says that a look ended before everything was asked.
var errOverBudget error = overBudget{}

type overBudget struct{}

func (overBudget) Error() string { return "not asked, as it takes more than one look may" }

// Is makes it an errNotAsked: it says nothing about the servers that were not asked.
func (overBudget) Is(target error) bool { return target == errNotAsked }

// budget is what one look has used so far. All of its questions carry it in their context.
type budget struct {
	questions atomic.Int32
	over      atomic.Pointer[string] // what ran out first
}

type budgetKey struct{}

// withBudget gives what happens under the context a budget of its own, time included.
func withBudget(ctx context.Context) (context.Context, *budget, context.CancelFunc) {
	b := new(budget)
	ctx, cancel := context.WithTimeoutCause(ctx, lookPatience, errOverBudget)
	return context.WithValue(ctx, budgetKey{}, b), b, cancel
}

// budgetOf is the budget of the look that ctx belongs to; nil outside of one.
func budgetOf(ctx context.Context) *budget {
	b, _ := ctx.Value(budgetKey{}).(*budget)
	return b
}

// charge counts one question, and is an error if there is none left.
func (b *budget) charge() error {
	if b == nil {
		return nil
	}
	if b.over.Load() != nil {
		return errOverBudget
	}
	if b.questions.Add(1) > maxQuestions {
		b.questions.Add(-1) // it is not asked
		return b.end(fmt.Sprintf("%d questions were asked", maxQuestions))
	}
	return nil
}

// end ends the look for a reason.
func (b *budget) end(why string) error {
	b.over.CompareAndSwap(nil, &why)
	return errOverBudget
}

// why is what ran out; empty if nothing did.
func (b *budget) why(ctx context.Context) string {
	if over := b.over.Load(); over != nil {
		return *over
	}
	if errors.Is(context.Cause(ctx), errOverBudget) {
		return fmt.Sprintf("it had taken %s", lookPatience)
	}
	return ""
}

// cutShort is an error if what was begun under ctx has to end, so that what was found so far is
// not all there is: it must not be kept.
func cutShort(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if b := budgetOf(ctx); b != nil && b.over.Load() != nil {
		return errOverBudget
	}
	return nil
}
