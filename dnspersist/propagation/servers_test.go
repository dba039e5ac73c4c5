package propagation

import (
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

// Dead IPv6 addresses of one zone do not keep the stale one of another from being seen:
// a CA with IPv6 would meet it.
func TestScenario06OneZonesDeadIPv6HidesNoStaleServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &hookNet{memNet: newMemNet(t)}
		n.publish(t, "192.0.2.1")
		n.publish(t, "192.0.2.2")
		const zoneA = "a.test. SOA n1.a.test. h.a.test. 1 1 1 1 60\na.test. NS n1.a.test.\na.test. NS n2.a.test.\n" +
			"n1.a.test. A 192.0.2.61\nn2.a.test. A 192.0.2.62\nn1.a.test. AAAA 2001:db8::61\nn2.a.test. AAAA 2001:db8::62\n"
		r := n.servers["192.0.2.53:53"]
		r.load(t, zoneA)
		n.add("192.0.2.61", t, zoneA)
		n.add("192.0.2.62", t, zoneA)
		r.load(t, otherZone+"ns2.other.test. AAAA 2001:db8::2\n")
		stale := &testServer{zones: make(map[string][]dns.RR)}
		stale.load(t, without)
		n.servers["[2001:db8::2]:53"] = stale
		c := n.checker()
		c.Look(t.Context(), Target{Name: "_validation-persist.x.a.test", Host: "x.a.test"})
		if rep := c.Check(t.Context(), target, c.NewGate()); rep.Status == StatusReady {
			t.Errorf("ready although ns2 is stale over IPv6: %s", rep.Summary())
		}
	})
}

// A referral is an answer, and does not spend the server's grace.
func TestScenario19ReferralSpendsNoGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &hookNet{memNet: newMemNet(t)}
		cut := without + "deep.example.test. NS nsd.other.test.\n"
		n.servers["192.0.2.1:53"].load(t, cut)
		n.servers["192.0.2.2:53"].load(t, cut)
		n.servers["192.0.2.53:53"].load(t, otherZone+"nsd.other.test. A 192.0.2.21\n")
		n.add("192.0.2.21", t, "deep.example.test. SOA nsd.other.test. h.other.test. 3 1 1 1 60\ndeep.example.test. NS nsd.other.test.\n")
		c := n.checker()
		c.Look(t.Context(), target) // the zone is known now
		for range 3 {
			c.Look(t.Context(), Target{Name: "_validation-persist.deep.example.test", Host: "deep.example.test"})
			time.Sleep(2 * time.Hour) // until the cut is found again
		}
		n.hook = func(_, addr string, q *dns.Msg) (*dns.Msg, error, bool) {
			return new(dns.Msg).SetRcode(q, dns.RcodeServerFailure), nil, addr == "192.0.2.2:53"
		}
		failed := c.Look(t.Context(), target).Servers
		if i := slices.IndexFunc(failed, func(s ServerReport) bool { return s.Addr == "192.0.2.2:53" }); i < 0 || failed[i].BadLooks != 1 {
			t.Errorf("a server that refers properly counts as bad: %+v", failed)
		}
	})
}

// A server that is lame for one zone and fails for the first time in another: that
// grace begins now.
func TestScenario08LameForAnotherZone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &hookNet{memNet: newMemNet(t)}
		n.publish(t, "192.0.2.1")
		n.publish(t, "192.0.2.2")
		const lame = "lame.test. SOA n1.lame.test. h.lame.test. 1 1 1 1 60\nlame.test. NS ns2.other.test.\n"
		n.servers["192.0.2.53:53"].load(t, lame)
		c := n.checker()
		for range 3 { // ns2 is lame for lame.test for two minutes
			c.Look(t.Context(), Target{Name: "_validation-persist.x.lame.test", Host: "x.lame.test"})
			time.Sleep(time.Minute)
		}
		n.hook = func(_, addr string, q *dns.Msg) (*dns.Msg, error, bool) {
			m := new(dns.Msg)
			m.SetRcode(q, dns.RcodeServerFailure)
			return m, nil, addr == "192.0.2.2:53"
		}
		rep := c.Check(t.Context(), target, c.NewGate())
		if rep.Status == StatusReady {
			t.Errorf("the first SERVFAIL in example.test is excused at once: %s", rep.Summary())
		}
	})
}

// A server, or what is before it, drops questions with EDNS, and TCP is closed.
func TestScenario41EDNSDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &hookNet{memNet: newMemNet(t)}
		n.publish(t, "192.0.2.1")
		n.publish(t, "192.0.2.2")
		n.hook = func(network, addr string, q *dns.Msg) (*dns.Msg, error, bool) {
			return nil, errSilent, addr == "192.0.2.2:53" && (network == "tcp" || q.IsEdns0() != nil)
		}
		c := n.checker()
		rep := c.Check(t.Context(), target, c.NewGate()) // two looks: one lost datagram proves nothing
		if rep.Status != StatusReady || !slices.Contains(rep.Codes(), CodeEDNSBroken) {
			t.Errorf("%s %v", rep.Summary(), rep.Codes())
		}
		n.log = nil
		c.Look(t.Context(), target)
		if got := n.questions("192.0.2.2:53"); got != 1 {
			t.Errorf("%d questions to a server that is known not to take EDNS, want 1: %q", got, n.log)
		}
	})
}

// A resolver that was quick takes its time for a name that it does not know yet, and is
// silent at first for another: it has neither failed nor shown that it lacks EDNS.
func TestResolverIsWaitedFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := &hookNet{memNet: newMemNet(t)}
		plain, lost := 0, make(map[string]bool)
		n.hook = func(network, addr string, q *dns.Msg) (*dns.Msg, error, bool) {
			n.mu.Lock()
			defer n.mu.Unlock()
			name := q.Question[0].Name
			if q.IsEdns0() == nil {
				plain++
			}
			if network == "udp" && strings.HasPrefix(name, "lost") && !lost[name] {
				lost[name] = true
				return nil, errSilent, true
			}
			n.latency = 5 * time.Millisecond
			if strings.HasPrefix(name, "cold") {
				n.latency = 1200 * time.Millisecond
			}
			return nil, errSilent, network == "tcp"
		}
		r := n.checker().finder.Resolvers
		for _, name := range []string{"www", "ns1", "cold1", "cold2", "cold3", "lost1", "lost2", "lost3"} {
			if ans, _, err := r.Query(t.Context(), name+".example.test.", dns.TypeA); err != nil || ans.NoEDNS {
				t.Errorf("%s: %v, without EDNS %v", name, err, ans.NoEDNS)
			}
		}
		if plain > 0 {
			t.Errorf("%d questions without EDNS", plain)
		}
	})
}

// A machine without IPv6 judges over IPv4: it waits for nobody, blames nobody, and polls no
// address that it cannot reach.
func TestNoIPv6(t *testing.T) {
	unreachable := &net.OpError{Op: "dial", Net: "udp", Err: syscall.ENETUNREACH}
	for name, blackhole := range map[string]time.Duration{"no route": 0, "no answer": time.Second} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := &hookNet{memNet: newMemNet(t)}
				n.servers["192.0.2.53:53"].load(t, otherZone+"ns2.other.test. AAAA 2001:db8::2\n")
				n.hook = func(_, addr string, _ *dns.Msg) (*dns.Msg, error, bool) {
					if !strings.HasPrefix(addr, "[2001:db8::") {
						return nil, nil, false
					}
					time.Sleep(blackhole)
					return nil, unreachable, true
				}
				c := n.checker()
				c.Look(t.Context(), target)
				before := n.questions("[2001:db8::2]")
				if before == 0 {
					t.Fatal("the address was not asked at all")
				}
				for i := range 10 {
					c.round(t.Context(), target, i, nil)
				}
				if after := n.questions("[2001:db8::2]"); after != before {
					t.Errorf("%d polls of an address that cannot be reached", after-before)
				}
				n.publish(t, "192.0.2.1")
				n.publish(t, "192.0.2.2")
				began := time.Now()
				rep := c.Check(t.Context(), target, c.NewGate())
				if took := time.Since(began); rep.Status != StatusReady || took > 2*time.Second {
					t.Errorf("after %s: %s", took, rep.Summary())
				}
				if codes := rep.Codes(); !slices.Equal(codes, []Code{CodeReady}) {
					t.Errorf("codes %v: %s", codes, rep.Summary())
				}
			})
		})
	}
}
