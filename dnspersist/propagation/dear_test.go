package propagation

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

// slowNet is a crowdNet where every answer, or that of resolvers alone, takes longer for a while.
type slowNet struct {
	*crowdNet
	resolver, servers time.Duration
	over              atomic.Bool
}

func (n *slowNet) Exchange(ctx context.Context, network, addr string, q *dns.Msg) (*dns.Msg, error) {
	if !n.over.Load() {
		if addr == "192.0.2.53:53" {
			time.Sleep(n.resolver)
		} else {
			time.Sleep(n.servers)
		}
	}
	return n.crowdNet.Exchange(ctx, network, addr, q)
}

// A name is not dear for a slow resolver at its first look, and one whose servers were slow is
// dear no longer than they are.
func TestHonestNamesDoNotStayDear(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name              string
		resolver, servers time.Duration
		dear              bool // at first
	}{
		{"a slow resolver", time.Second, 0, false},
		{"slow servers", 0, 1500 * time.Millisecond, true},
	} {
		synctest.Test(t, func(t *testing.T) {
			n := &slowNet{crowdNet: &crowdNet{}, resolver: tt.resolver, servers: tt.servers}
			s := NewScheduler(SchedulerConfig{})
			defer s.Close()
			c := NewChecker(Config{Resolvers: []string{"192.0.2.53"}, Exchanger: n})
			target := Target{Name: "_validation-persist.h1.good1.test", Host: "h1.good1.test", Accept: accept}
			g := c.NewGate()
			c.Check(t.Context(), target, g)
			n.over.Store(true)
			s.Watch("k", c, target, g, nil)
			isDear := func() bool {
				s.mu.Lock()
				defer s.mu.Unlock()
				return s.watches["k"].lane() == laneDear
			}
			if isDear() != tt.dear {
				t.Errorf("%s: dear at first: %v", tt.name, !tt.dear)
			}
			if time.Sleep(time.Minute); isDear() {
				t.Errorf("%s: dear for ever", tt.name)
			}
		})
	}
}
