package propagation

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/miekg/dns"
)

// A wildcard answers at the validation name, with a text or a CNAME of its own; a text that
// stands there itself is none.
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
