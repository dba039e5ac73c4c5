package propagation

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

// Resolvers fail because all servers of the zone do: these are found through the zone
// above, and named.
func TestAllServersLame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &hookNet{memNet: newMemNet(t)}
		const up = "test. SOA n.test. h.test. 1 1 1 1 60\ntest. NS n.test.\nn.test. A 192.0.2.70\n"
		n.add("192.0.2.70", t, up+"example.test. NS ns1.example.test.\nexample.test. NS ns2.other.test.\nns1.example.test. A 192.0.2.1\n")
		n.servers["192.0.2.53:53"].load(t, up)
		n.hook = func(_, addr string, q *dns.Msg) (*dns.Msg, error, bool) {
			m := new(dns.Msg)
			switch {
			case addr == "192.0.2.53:53" && dns.IsSubDomain("example.test.", q.Question[0].Name) && !strings.HasPrefix(q.Question[0].Name, "ns"):
				m.SetRcode(q, dns.RcodeServerFailure)
				return m, nil, true
			case addr == "192.0.2.1:53" || addr == "192.0.2.2:53":
				m.SetRcode(q, dns.RcodeRefused)
				return m, nil, true
			}
			return nil, nil, false
		}
		c := n.checker()
		rep := c.Check(t.Context(), target, c.NewGate())
		if len(rep.Servers) != 2 || !slices.Contains(rep.Codes(), CodeLame) || !strings.Contains(rep.Summary(), "ns2.other.test") {
			t.Errorf("the servers are not named: %s %v", rep.Summary(), rep.Codes())
		}

		n.publish(t, "192.0.2.1")
		n.publish(t, "192.0.2.2")
		failing := n.hook
		n.hook = func(network, addr string, q *dns.Msg) (*dns.Msg, error, bool) {
			if addr != "192.0.2.53:53" {
				return nil, nil, false
			}
			return failing(network, addr, q)
		}
		if c.Look(t.Context(), target); n.questions("192.0.2.53:53 "+validationName) == 0 {
			t.Error("whether the zone validates is not asked")
		}
	})
}

// With check recursive a resolver that validates says SERVFAIL, too.
func TestScenario47RecursiveBogus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &hookNet{memNet: newMemNet(t)}
		n.servers["192.0.2.53:53"].load(t, withRecord)
		n.hook = func(_, _ string, q *dns.Msg) (*dns.Msg, error, bool) {
			m := new(dns.Msg)
			m.SetRcode(q, dns.RcodeServerFailure)
			return m, nil, !q.CheckingDisabled
		}
		c := NewChecker(Config{Mode: ModeRecursive, Resolvers: []string{"192.0.2.53"}, Exchanger: n})
		rep := c.Check(t.Context(), target, c.NewGate())
		if rep.Status == StatusReady || !slices.Contains(rep.Codes(), CodeBogus) {
			t.Errorf("%s %v", rep.Summary(), rep.Codes())
		}
	})
}

// The resolver knows a zone of which the zone above answers NXDOMAIN, for a public CA and for
// one of this network.
func TestScenario52ParentDenies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &hookNet{memNet: newMemNet(t)}
		n.publish(t, "192.0.2.1")
		n.publish(t, "192.0.2.2")
		const up = "test. SOA n.test. h.test. 1 1 1 1 60\ntest. NS n.test.\nn.test. A 192.0.2.70\n"
		n.add("192.0.2.70", t, up)
		n.servers["192.0.2.53:53"].load(t, up)
		for _, private := range []bool{false, true} {
			c := NewChecker(Config{Resolvers: []string{"192.0.2.53"}, Exchanger: n, AllowPrivate: private})
			rep := c.Check(t.Context(), target, c.NewGate())
			if denied := slices.Contains(rep.Codes(), CodeNotDelegated); denied == private || (rep.Status == StatusReady) != private {
				t.Errorf("private %v: %s %v", private, rep.Summary(), rep.Codes())
			}
		}
	})
}

// All servers of one zone are down while another zone's answers: port 53 is not blocked.
func TestScenario13OtherZonesAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &hookNet{memNet: newMemNet(t)}
		const zoneA = "a.test. SOA n1.a.test. h.a.test. 1 1 1 1 60\na.test. NS n1.a.test.\nn1.a.test. A 192.0.2.61\n"
		n.servers["192.0.2.53:53"].load(t, zoneA)
		n.add("192.0.2.61", t, zoneA)
		n.hook = func(_, addr string, q *dns.Msg) (*dns.Msg, error, bool) {
			return nil, errSilent, addr == "192.0.2.1:53" || addr == "192.0.2.2:53"
		}
		c := n.checker()
		c.Look(t.Context(), Target{Name: "_validation-persist.x.a.test", Host: "x.a.test"})
		rep := c.Check(t.Context(), target, c.NewGate())
		if slices.Contains(rep.Codes(), CodePort53Blocked) {
			t.Errorf("port 53 is said to be blocked although another zone's server answered just now: %v", rep.Codes())
		}
	})
}

// The zone above, which is asked each time as one of its servers is dead, delegates to another
// server from now on: that one is asked, and not the old one for as long as it is cached.
func TestScenario53DelegationChanges(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		childAt := func(host string) string {
			return validationName + ". SOA " + host + " h.other.test. 3 1 1 1 60\n" + validationName + ". NS " + host + "\n"
		}
		n := &hookNet{memNet: newMemNet(t)}
		n.servers["192.0.2.53:53"].load(t, otherZone+"nsd.other.test. A 192.0.2.21\nnse.other.test. A 192.0.2.22\n")
		n.add("192.0.2.21", t, childAt("nsd.other.test."))
		n.add("192.0.2.22", t, childAt("nse.other.test.")+validationName+`. TXT "`+wantedValue+"\"\n")
		delete(n.servers, "192.0.2.2:53")
		c := n.checker()
		for _, tt := range []struct{ host, want string }{
			{"nsd", "nsd.other.test 192.0.2.21=no"},
			{"nse", "nse.other.test 192.0.2.22=yes"},
		} {
			n.servers["192.0.2.1:53"].load(t, without+validationName+". NS "+tt.host+".other.test.\n")
			time.Sleep(10 * time.Second)
			for range 2 {
				if got := verdicts(c.Look(t.Context(), target)); got != tt.want {
					t.Errorf("got %s, want %s", got, tt.want)
				}
			}
			n.log = nil
			if c.Look(t.Context(), target); n.questions("192.0.2.53:53") > 0 {
				t.Errorf("resolvers are asked again for what is known: %q", n.log)
			}
		}
	})
}

// A failure is found again soon, but not for every name that asks.
func TestDiscoveryFailureIsCached(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := newMemNet(t)
		delete(n.servers, "192.0.2.53:53")
		c := n.checker()
		if r := c.Look(t.Context(), target); r.Err == nil {
			t.Fatal("no error")
		}
		resolver := n.add("192.0.2.53", t, without, otherZone)
		resolver.recursive = true
		if r := c.Look(t.Context(), target); r.Err == nil {
			t.Error("the failure is not cached")
		}
		time.Sleep(5 * time.Second)
		if r := c.Look(t.Context(), target); r.Err != nil {
			t.Error(r.Err)
		}
		// The zone's data is kept for its TTL.
		n.mu.Lock()
		delete(n.servers, "192.0.2.53:53")
		n.mu.Unlock()
		time.Sleep(200 * time.Second)
		if r := c.Look(t.Context(), target); r.Err != nil {
			t.Error(r.Err)
		}
		time.Sleep(200 * time.Second)
		if r := c.Look(t.Context(), target); r.Err == nil {
			t.Error("the zone's data outlived its TTL")
		}
	})
}
