package propagation

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/miekg/dns"
)

// A resolver fails for the host alone, or refuses to answer for it: its zone is found through
// the zone above, and its servers have the record.
func TestResolverFailsForOneName(t *testing.T) {
	for _, rcode := range []int{dns.RcodeServerFailure, dns.RcodeRefused} {
		t.Run(dns.RcodeToString[rcode], func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := &hookNet{memNet: newMemNet(t)}
				n.publish(t, "192.0.2.1")
				n.publish(t, "192.0.2.2")
				const up = "test. SOA n.test. h.test. 1 1 1 1 60\ntest. NS n.test.\nn.test. A 192.0.2.70\n"
				n.add("192.0.2.70", t, up+"example.test. NS ns1.example.test.\nexample.test. NS ns2.other.test.\nns1.example.test. A 192.0.2.1\n")
				n.servers["192.0.2.53:53"].load(t, up)
				n.hook = func(_, addr string, q *dns.Msg) (*dns.Msg, error, bool) {
					m := new(dns.Msg)
					m.SetRcode(q, rcode)
					return m, nil, addr == "192.0.2.53:53" && q.Question[0].Name == "www.example.test."
				}
				c := n.checker()
				if rep := c.Check(t.Context(), target, c.NewGate()); rep.Status != StatusReady || len(rep.Servers) != 2 {
					t.Errorf("%s %v", rep.Summary(), rep.Codes())
				}
			})
		})
	}
}

// Servers inside the network do not have the record: it may be looked for outside.
func TestInsideServersMayDiffer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, tt := range []struct {
			addr          string
			record, wants bool
		}{{"10.0.0.1", false, true}, {"10.0.0.1", true, false}, {"192.0.2.1", false, false}} {
			n := &hookNet{memNet: newMemNet(t)}
			n.servers["192.0.2.53:53"].load(t, soaRecord+"example.test. NS ns1.example.test.\nns1.example.test. A "+tt.addr+"\n")
			zone := without
			if tt.record {
				zone = withRecord
			}
			n.add(tt.addr, t, strings.ReplaceAll(zone, "example.test. NS ns2.other.test.\n", ""))
			c := NewChecker(Config{Resolvers: []string{"192.0.2.53"}, Exchanger: n, AllowPrivate: true})
			rep := c.Check(t.Context(), target, c.NewGate())
			if said := slices.Contains(rep.Codes(), CodeInsideServers); said != tt.wants {
				t.Errorf("%+v: %s %v", tt, rep.Summary(), rep.Codes())
			}
		}
	})
}
