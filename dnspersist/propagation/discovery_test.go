package propagation

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation/internal/ask"
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
			t.Errorf("port 53 is reported as blocked although another zone's server answered just now: %v", rep.Codes())
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

// A resolver that validates fails once, as one does whose patience ends at a slow server, for
// each name and type; always; or once with a word on DNSSEC.
func TestScenario47PassingServfail(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name          string
		mode          Mode
		always, blame bool
		want          bool // dnssec_bogus
	}{
		{"once", ModeAuthoritative, false, false, false},
		{"always", ModeAuthoritative, true, false, true},
		{"blames DNSSEC", ModeAuthoritative, false, true, true},
		{"recursive, once", ModeRecursive, false, false, false},
		{"recursive, always", ModeRecursive, true, false, true},
		{"recursive, blames DNSSEC", ModeRecursive, false, true, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				n := &hookNet{memNet: newMemNet(t)}
				n.publish(t, "192.0.2.1")
				n.publish(t, "192.0.2.2")
				n.servers["192.0.2.53:53"].load(t, withRecord+"example.test. DS 1 13 2 "+strings.Repeat("00", 32)+"\n")
				failed := make(map[dns.Question]bool)
				n.hook = func(_, addr string, q *dns.Msg) (*dns.Msg, error, bool) {
					n.mu.Lock()
					defer n.mu.Unlock()
					question := q.Question[0]
					if addr != "192.0.2.53:53" || q.CheckingDisabled || (failed[question] && !tt.always) {
						return nil, nil, false
					}
					failed[question] = true
					m := new(dns.Msg).SetRcode(q, dns.RcodeServerFailure)
					if tt.blame {
						m.SetEdns0(ask.UDPSize, true)
						m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_EDE{InfoCode: dns.ExtendedErrorCodeSignatureExpired}}
					}
					return m, nil, true
				}
				c := NewChecker(Config{Mode: tt.mode, Resolvers: []string{"192.0.2.53"}, Exchanger: n})
				rep := c.Check(t.Context(), target, c.NewGate())
				if bogus := slices.Contains(rep.Codes(), CodeBogus); bogus != tt.want || (rep.Status == StatusReady) == tt.want {
					t.Errorf("%s %v", rep.Summary(), rep.Codes())
				}
			})
		})
	}
}

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
			if found := slices.Contains(rep.Codes(), CodeInsideServers); found != tt.wants {
				t.Errorf("%+v: %s %v", tt, rep.Summary(), rep.Codes())
			}
		}
	})
}
