package propagation

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

const latency = 10 * time.Millisecond

// silentNet answers for some addresses and lets the others time out.
type silentNet struct {
	mu     sync.Mutex
	answer func(addr, network string) bool
	asked  map[string]int // by network and address
}

func (n *silentNet) Exchange(ctx context.Context, network, addr string, query *dns.Msg) (*dns.Msg, error) {
	n.mu.Lock()
	n.asked[network+" "+addr]++
	ok := n.answer(addr, network)
	n.mu.Unlock()
	if ok {
		time.Sleep(latency)
		return new(dns.Msg).SetReply(query), nil
	}
	patience := DefaultUDPTimeout
	if network == "tcp" {
		patience = DefaultTCPTimeout
	}
	select {
	case <-time.After(patience):
		return nil, errors.New("i/o timeout")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// A silent server costs its time-outs once; after that a second, until it answers again.
func TestSilentServerIsRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up := false
		n := &silentNet{asked: make(map[string]int), answer: func(string, string) bool { return up }}
		a := asker{exchanger: n, memory: memoryOf(n)}
		ask := func() time.Duration {
			began := time.Now()
			if _, err := a.ask(t.Context(), "192.0.2.1:53", "example.test.", dns.TypeTXT, false); (err == nil) != up {
				t.Fatalf("the answer is %v", err)
			}
			v := VerdictSilent
			if up {
				v = VerdictYes
			}
			a.memory.judged("192.0.2.1:53", "example.test.", v)
			return time.Since(began)
		}
		if took := ask(); took != 2*DefaultUDPTimeout+DefaultTCPTimeout {
			t.Errorf("the first question took %s", took)
		}
		if took := ask(); took != shortTimeout {
			t.Errorf("the second question took %s, want %s", took, shortTimeout)
		}
		time.Sleep(tcpAgain)
		if took := ask(); took != shortTimeout+DefaultTCPTimeout {
			t.Errorf("with TCP once a minute it took %s", took)
		}
		since, looks := a.memory.recall("192.0.2.1:53").badSince, a.memory.recall("192.0.2.1:53").badLooks
		if looks != 3 || time.Since(since) < tcpAgain {
			t.Errorf("bad for %s and %d looks", time.Since(since), looks)
		}
		up = true
		if took := ask(); took != latency {
			t.Errorf("the answer took %s", took)
		}
		if s := a.memory.recall("192.0.2.1:53"); !s.badSince.IsZero() || s.silent {
			t.Errorf("it counts as bad still: %+v", s)
		}
		up = false
		if took := ask(); took != 2*minRTTWait+DefaultTCPTimeout {
			t.Errorf("a server that was quick is waited for %s", took)
		}
		time.Sleep(memoryFor + time.Second)
		if s := a.memory.recall("192.0.2.1:53"); s.addr != "" {
			t.Errorf("after a day something is remembered: %+v", s)
		}
	})
}

// A server that answers over TCP alone is asked over UDP once and briefly.
func TestTCPOnlyServerIsRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &silentNet{asked: make(map[string]int), answer: func(_, network string) bool { return network == "tcp" }}
		a := asker{exchanger: n, memory: memoryOf(n)}
		for i, want := range []time.Duration{2*DefaultUDPTimeout + latency, shortTimeout + latency} {
			began := time.Now()
			if _, err := a.ask(t.Context(), "192.0.2.1:53", "example.test.", dns.TypeTXT, false); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(began); took != want {
				t.Errorf("question %d took %s, want %s", i+1, took, want)
			}
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
		r := n.checker().resolvers
		for _, name := range []string{"www", "ns1", "cold1", "cold2", "cold3", "lost1", "lost2", "lost3"} {
			if _, _, err := r.query(t.Context(), name+".example.test.", dns.TypeA); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if plain > 0 || r.asker.withoutEDNS("192.0.2.53:53") {
			t.Errorf("%d questions without EDNS", plain)
		}
	})
}

// A machine without IPv6 judges over IPv4: it waits for nobody, blames nobody, and polls no
// address that it cannot reach.
func TestNoIPv6(t *testing.T) {
	unreachable := &net.OpError{Op: "dial", Net: "udp", Err: syscall.ENETUNREACH}
	for name, blackhole := range map[string]time.Duration{"no route": 0, "no answer": shortTimeout} {
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
					c.Glance(t.Context(), target, i)
				}
				if after := n.questions("[2001:db8::2]"); after != before {
					t.Errorf("%d polls of an address that cannot be reached", after-before)
				}
				n.publish(t, "192.0.2.1")
				n.publish(t, "192.0.2.2")
				began := time.Now()
				rep := c.Check(t.Context(), target, c.NewGate())
				if took := time.Since(began); rep.Status != StatusReady || took > 2*shortTimeout {
					t.Errorf("after %s: %s", took, rep.Summary())
				}
				if codes := rep.Codes(); !slices.Equal(codes, []Code{CodeReady}) {
					t.Errorf("codes %v: %s", codes, rep.Summary())
				}
			})
		})
	}
}

// A host that was silent long before a gate began needs no grace again.
func TestGraceIsRemembered(t *testing.T) {
	g := NewGate(time.Minute, time.Second)
	r := roundOf("y s", 0)
	for i := range r.Servers {
		if r.Servers[i].Verdict == VerdictSilent {
			r.Servers[i].BadSince, r.Servers[i].BadLooks = r.When.Add(-time.Hour), 5
		}
	}
	if rep := g.Observe(r); rep.Status != StatusSettling || len(rep.Excused) != 1 {
		t.Errorf("after the first look: %s, excused %v", rep.Status, rep.Excused)
	}
}

func netAddr(s string) netip.Addr { return netip.MustParseAddr(s) }
