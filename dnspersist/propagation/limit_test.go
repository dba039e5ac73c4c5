package propagation

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// Thousands of names that start together, each with a look of its own, do not flood the
// servers of their zone; one whose turn does not come in time proves nothing.
func TestScenario55LooksAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &hookNet{memNet: newMemNet(t)}
		c := n.checker()
		const names = 5000
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
		if took, least := time.Since(began), time.Duration(names-lookBurst)*time.Second/lookRate; took < least || took > least+5*time.Second {
			t.Errorf("%d looks took %v, want about %v", names, took, least)
		}

		for range 100 * lookRate { // long in debt
			c.asker.memory.looks.server("192.0.2.1:53").Reserve()
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		r := c.Look(ctx, target)
		if codeOf(r.Err) != CodeNotAsked || time.Since(began) > time.Hour {
			t.Errorf("round %+v", r)
		}
		g := NewGate(time.Nanosecond, time.Nanosecond)
		for range 5 {
			if rep := g.Observe(r); rep.Status != StatusBlocked || len(rep.Excused) > 0 {
				t.Errorf("report %+v", rep)
			}
		}
		if s := c.asker.memory.recall("192.0.2.1:53"); !s.badSince.IsZero() {
			t.Error("a server that was not asked counts as silent")
		}

		for range 100 * lookRate {
			c.asker.memory.looks.server("192.0.2.2:53").Reserve()
		}
		time.Sleep(minAgeToDrop)
		ctx, cancel = context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if c.Look(ctx, target); c.discovery.known("www.example.test.") == nil {
			t.Error("a zone of which no server was asked counts as dead")
		}
	})
}
