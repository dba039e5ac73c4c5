package propagation

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation/internal/ask"
)

// A wildcard answers at the validation name, with a text or a CNAME of its own; a text that
// is there itself is not one.
func TestScenario2728WildcardIsNamed(t *testing.T) {
	for _, tt := range []struct {
		name, record string
		want         bool
	}{
		{"text", `60 TXT "v=spf1 -all"`, true},
		{"alias", "60 CNAME elsewhere.example.test.", true},
		{"exact text", `60 TXT "v=spf1 -all"`, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := &hookNet{memNet: newMemNet(t)}
				n.hook = func(_, addr string, q *dns.Msg) (*dns.Msg, error, bool) {
					name := q.Question[0].Name
					if q.Question[0].Qtype != dns.TypeTXT || addr == "192.0.2.53:53" || strings.HasPrefix(name, "elsewhere.") {
						return nil, nil, false
					}
					if !tt.want && name != validationName+"." {
						return nil, nil, false
					}
					m := new(dns.Msg).SetReply(q)
					m.Authoritative = true
					rr, err := dns.NewRR(name + " " + tt.record)
					m.Answer = []dns.RR{rr}
					return m, err, true
				}
				c := n.checker()
				g := c.NewGate()
				for range 2 {
					rep := c.Check(t.Context(), target, g)
					if rep.Status != StatusAbsent || slices.Contains(rep.Codes(), CodeWildcard) != tt.want {
						t.Errorf("%s %v", rep.Summary(), rep.Codes())
					}
				}
				want := 1
				if tt.want {
					want = 2 // one of each server
				}
				if got := n.questions("." + validationName + ". TXT"); got != want {
					t.Errorf("%d questions for the name below, want %d for both looks", got, want)
				}
			})
		})
	}
}

// A renewal asks each address one question a round, once it is known where the zone ends.
func TestRenewalQuestions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &hookNet{memNet: newMemNet(t)}
		n.publish(t, "192.0.2.1")
		n.publish(t, "192.0.2.2")
		c := n.checker()
		c.Check(t.Context(), target, c.NewGate())
		for round := range 2 {
			n.log = nil
			c.Look(t.Context(), target)
			for _, a := range []string{"192.0.2.1:53", "192.0.2.2:53"} {
				if got := n.questions(a); got > 1 {
					t.Errorf("round %d: %d questions to %s", round, got, a)
				}
			}
		}
	})
}

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
