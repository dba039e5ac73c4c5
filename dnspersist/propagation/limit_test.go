package propagation

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation/internal/ask"
)

// Thousands of names that start together, each with a look of its own, do not flood the
// servers of their zone; one whose turn does not come in time proves nothing.
func TestScenario55LooksAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &hookNet{memNet: newMemNet(t)}
		c := n.checker()
		const names, rate, burst = 5000, 500, 2000 // an address is asked so much
		began := time.Now()
		var wg sync.WaitGroup
		for i := range names {
			h := fmt.Sprintf("h%d.example.test", i)
			wg.Go(func() {
				if r := c.Look(t.Context(), Target{Name: "_validation-persist." + h, Host: h}); r.Err != nil || len(r.Servers) != 2 {
					t.Errorf("round %+v", r)
				}
			})
		}
		wg.Wait()
		if took, least := time.Since(began), time.Duration(names-burst)*time.Second/rate; took < least || took > least+5*time.Second {
			t.Errorf("%d looks took %v, want about %v", names, took, least)
		}

		late := ask.ErrNotAsked
		n.hook = func(string, string, *dns.Msg) (*dns.Msg, error, bool) { return nil, late, true }
		r := c.Look(t.Context(), target)
		if ask.CodeOf(r.Err) != CodeNotAsked || time.Since(began) > time.Hour {
			t.Errorf("round %+v", r)
		}
		g := NewGate(time.Nanosecond, time.Nanosecond)
		for range 5 {
			if rep := g.Observe(r); rep.Status != StatusBlocked || len(rep.Excused) > 0 {
				t.Errorf("report %+v", rep)
			}
		}
		if slices.ContainsFunc(r.Servers, func(s ServerReport) bool { return !s.BadSince.IsZero() }) {
			t.Errorf("a server that was not asked counts as silent: %+v", r)
		}

		time.Sleep(10 * time.Second)
		c.Look(t.Context(), target)
		n.hook, n.log = nil, nil
		if c.Look(t.Context(), target); n.questions("192.0.2.53:53") > 0 {
			t.Error("a zone of which no server was asked counts as dead")
		}
	})
}
