package propagation

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// A deadline that ends while servers are asked is no fault of theirs: what is known stays
// known, and a first look says that it is incomplete.
func TestCheckDeadline(t *testing.T) {
	t.Parallel()
	for _, mode := range []Mode{ModeAuthoritative, ModeRecursive} {
		for _, known := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				n := newMemNet(t)
				n.publish(t, "192.0.2.1")
				c := NewChecker(Config{Mode: mode, Resolvers: []string{"192.0.2.53"}, Exchanger: n})
				g := c.NewGate()
				before := g.Report()
				c.Look(t.Context(), target) // the zone is known
				if known {
					before = c.Check(t.Context(), target, g)
					time.Sleep(time.Hour)
					c.Look(t.Context(), target)
				}
				n.latency = 200 * time.Millisecond
				ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
				defer cancel()
				rep := c.Check(ctx, target, g)
				codes := rep.Codes()
				if slices.Contains(codes, CodeUnreachable) || slices.Contains(codes, CodePort53Blocked) {
					t.Errorf("%s, known %v: servers are blamed: %v", mode, known, codes)
				}
				if known && !rep.When.Equal(before.When) {
					t.Errorf("%s: the look that was cut short counts: %s", mode, rep.Summary())
				}
				if !known && (rep.Status != StatusBlocked || rep.Problem != CodeNotAsked) {
					t.Errorf("%s: %s %v", mode, rep.Summary(), codes)
				}
			})
		}
	}
}
