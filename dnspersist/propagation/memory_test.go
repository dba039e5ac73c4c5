package propagation

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"
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

// Where no server answers over IPv6 while one does over IPv4, IPv6 is left alone for a while.
func TestIPv6Down(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := memoryOf(&silentNet{})
		servers := []server{
			{host: "a.", addr: netAddr("192.0.2.1")},
			{host: "a.", addr: netAddr("2001:db8::1")},
			{host: "b.", addr: netAddr("192.0.2.2")},
			{host: "b.", addr: netAddr("2001:db8::2")},
			{host: "six.", addr: netAddr("2001:db8::6")},
		}
		say := func(four, six Verdict) []outcome {
			var all []outcome
			for _, s := range servers {
				v := four
				if isIPv6(s.addr) {
					v = six
				}
				all = append(all, outcome{ServerReport: ServerReport{Verdict: v}})
			}
			return all
		}
		answered := say(VerdictYes, VerdictNo)
		for i := range answered {
			answered[i].Network = "udp"
		}
		elsewhere := slices.Clone(servers)
		elsewhere[4].addr = netAddr("2001:db9::6")
		m.noteFamilies("a.", servers, say(VerdictSilent, VerdictSilent)) // nothing answers
		m.noteFamilies("a.", servers, answered)
		m.noteFamilies("a.", elsewhere, say(VerdictYes, VerdictSilent)) // one zone
		m.noteFamilies("b.", servers, say(VerdictYes, VerdictSilent))   // but IPv6 worked just now
		if m.ipv6IsDown() {
			t.Error("IPv6 counts as down without evidence")
		}
		time.Sleep(ipv6DownFor + time.Second)
		m.noteFamilies("b.", servers, say(VerdictYes, VerdictSilent))
		if !m.ipv6IsDown() {
			t.Error("IPv6 does not count as down")
		}
		other := memoryOf(&silentNet{})
		other.noteFamilies("a.", servers, say(VerdictYes, VerdictSilent))
		other.noteFamilies("b.", servers, say(VerdictYes, VerdictSilent))
		if other.ipv6IsDown() {
			t.Error("two zones at one provider prove that IPv6 is down here")
		}
		lost := say(VerdictYes, VerdictSilent)
		lost[1].noRoute = true
		if other.noteFamilies("a.", servers, lost); !other.ipv6IsDown() {
			t.Error("IPv6 does not count as down though there is no route")
		}
		if rest := withoutIPv6(servers); len(rest) != 3 || rest[2].host != "six." {
			t.Errorf("left are %v, want the IPv4 ones and the host that has no other", rest)
		}
		unasked := memoryOf(&silentNet{})
		busy := say(VerdictYes, VerdictSilent)
		for i := range busy {
			if busy[i].Verdict == VerdictSilent {
				busy[i].Defect = CodeNotAsked
			}
		}
		unasked.noteFamilies("a.", servers, busy)
		unasked.noteFamilies("b.", elsewhere, busy)
		if unasked.ipv6IsDown() {
			t.Error("IPv6 counts as down though nobody was asked over it")
		}
		time.Sleep(ipv6DownFor)
		if m.ipv6IsDown() {
			t.Error("IPv6 counts as down for ever")
		}
	})
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
