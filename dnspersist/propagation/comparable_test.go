package propagation

import (
	"context"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// mapExchanger cannot be compared, as little as many a caller's own.
type mapExchanger struct{ seen map[string]bool }

func (m mapExchanger) Exchange(_ context.Context, _, addr string, _ *dns.Msg) (*dns.Msg, error) {
	return nil, context.DeadlineExceeded
}

func TestExchangerThatCannotBeCompared(t *testing.T) {
	c := NewChecker(Config{Exchanger: mapExchanger{map[string]bool{}}, Resolvers: []string{"192.0.2.53"}})
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	round := c.Look(ctx, Target{Name: "_validation-persist.example.com", Host: "example.com"})
	if round.Err == nil {
		t.Error("a look that nobody answers has no error")
	}
}
