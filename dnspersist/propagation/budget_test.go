package propagation

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation/internal/ask"
)

// mazeNet is an Internet that its test makes up: answer is asked for all but what the resolver
// at 192.0.2.53 and the two servers of example.test have. It is served by memNet.
type mazeNet struct {
	*memNet
	answer func(addr netip.Addr, q dns.Question, m *dns.Msg) error

	mu    sync.Mutex
	asked map[string]bool // "addr name type": questions, retransmissions apart
}

// newMaze has a CNAME from the validation name to target.
func newMaze(t *testing.T, target string, answer func(addr netip.Addr, q dns.Question, m *dns.Msg) error) *mazeNet {
	n := &mazeNet{memNet: newMemNet(t), answer: answer, asked: make(map[string]bool)}
	for _, addr := range []string{"192.0.2.1:53", "192.0.2.2:53"} {
		if target != "" {
			n.servers[addr].load(t, without+validationName+". CNAME "+target+"\n")
		}
	}
	return n
}

func (n *mazeNet) Exchange(ctx context.Context, network, addr string, query *dns.Msg) (*dns.Msg, error) {
	q := query.Question[0]
	n.mu.Lock()
	n.asked[fmt.Sprintf("%s %s %d", addr, q.Name, q.Qtype)] = true
	n.mu.Unlock()
	if dns.IsSubDomain("example.test.", q.Name) || dns.IsSubDomain("other.test.", q.Name) {
		return n.memNet.Exchange(ctx, network, addr, query)
	}
	m := new(dns.Msg).SetReply(query)
	host, _, _ := net.SplitHostPort(addr)
	if err := n.answer(netip.MustParseAddr(host), q, m); err != nil {
		patience := ask.DefaultUDPTimeout
		if network == "tcp" {
			patience = ask.DefaultTCPTimeout
		}
		select {
		case <-time.After(patience):
			return nil, err
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return m, nil
}

func (n *mazeNet) checker() *Checker {
	return NewChecker(Config{Resolvers: []string{"192.0.2.53"}, Exchanger: n})
}

// count is how many questions were asked since it was last called.
func (n *mazeNet) count() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	c := len(n.asked)
	clear(n.asked)
	return c
}

func rr(format string, args ...any) dns.RR {
	r, err := dns.NewRR(fmt.Sprintf(format, args...))
	if err != nil {
		panic(err)
	}
	return r
}

// labels is n labels below evil.test.
func labels(n int) string { return strings.Repeat("a.", n) + "evil.test." }

const mazeResolver = "192.0.2.53"

// deep is a name below evil.test at whose every label there is a cut with hosts that do not
// exist, and one that does; with dead, one of them has an address at which nobody listens.
func deep(hosts int, dead bool) func(netip.Addr, dns.Question, *dns.Msg) error {
	listed := func(depth int) (ns, glue []dns.RR) {
		cut := labels(depth)
		for i := range hosts {
			ns = append(ns, rr("%s 300 NS none%d-%d.void.test.", cut, depth, i))
		}
		ns = append(ns, rr("%s 300 NS ns.%s", cut, cut))
		glue = append(glue, rr("ns.%s 300 A 198.51.100.%d", cut, depth+1))
		if dead {
			ns = append(ns, rr("%s 300 NS dead.%s", cut, cut))
			glue = append(glue, rr("dead.%s 300 A 203.0.113.%d", cut, depth+1))
		}
		return ns, glue
	}
	return func(addr netip.Addr, q dns.Question, m *dns.Msg) error {
		name := dns.CanonicalName(q.Name)
		if addr.String() == mazeResolver {
			m.RecursionAvailable = true
			switch {
			case q.Qtype == dns.TypeSOA && dns.IsSubDomain("evil.test.", name):
				m.Ns = []dns.RR{rr("evil.test. 300 SOA ns.evil.test. h.evil.test. 1 1 1 1 60")}
			case q.Qtype == dns.TypeNS && name == "evil.test.":
				m.Answer, _ = listed(0)
			case q.Qtype == dns.TypeA && (name == "ns.evil.test." || name == "dead.evil.test."):
				_, glue := listed(0)
				for _, g := range glue {
					if g.Header().Name == name {
						m.Answer = append(m.Answer, g)
					}
				}
			default:
				m.Rcode = dns.RcodeNameError
			}
			return nil
		}
		b := addr.As4()
		depth := int(b[3]) - 1
		if b[0] == 203 {
			return errSilent
		}
		switch {
		case q.Qtype == dns.TypeTXT && name != labels(depth) && dns.IsSubDomain(labels(depth+1), name):
			m.Ns, m.Extra = listed(depth + 1)
		case q.Qtype == dns.TypeNS && name == labels(depth):
			m.Authoritative = true
			m.Answer, m.Extra = listed(depth)
		default:
			m.Authoritative = true
			m.Ns = []dns.RR{rr("%s 300 SOA ns.%s h.%s 1 1 1 1 60", labels(depth), labels(depth), labels(depth))}
		}
		return nil
	}
}

// fanOut is a chain of zones z0.test, z1.test, … of 32 addresses, each with a CNAME to the next
// on each of its servers.
func fanOut(addr netip.Addr, q dns.Question, m *dns.Msg) error {
	name := dns.CanonicalName(q.Name)
	var zone int
	if _, err := fmt.Sscanf(name[strings.LastIndex(strings.TrimSuffix(name, ".test."), ".z")+1:], "z%d.test.", &zone); err != nil {
		m.Rcode = dns.RcodeNameError
		return nil
	}
	apex := fmt.Sprintf("z%d.test.", zone)
	soa := rr("%s 300 SOA ns.%s h.%s 1 1 1 1 60", apex, apex, apex)
	if addr.String() == mazeResolver {
		m.RecursionAvailable = true
		switch {
		case q.Qtype == dns.TypeNS && name == apex:
			m.Answer = []dns.RR{rr("%s 300 NS ns.%s", apex, apex)}
		case q.Qtype == dns.TypeA && name == "ns."+apex:
			for i := range 32 {
				m.Answer = append(m.Answer, rr("%s 300 A 198.51.%d.%d", name, zone, i+1))
			}
		default:
			m.Ns = []dns.RR{soa}
		}
		return nil
	}
	m.Authoritative = true
	if q.Qtype == dns.TypeTXT {
		m.Answer = []dns.RR{rr("%s 300 CNAME v.z%d.test.", name, zone+1)}
	} else {
		m.Ns = []dns.RR{soa}
	}
	return nil
}

// A look ends within its budget, says so, and finds nothing ready.
func TestLookHasABudget(t *testing.T) {
	for _, tt := range []struct {
		name, alias string
		answer      func(netip.Addr, dns.Question, *dns.Msg) error
		says        string
		code        Code
	}{
		{"31 hosts that do not exist", labels(110), deep(31, false), "no address", CodeTooManyServers},
		{"110 cuts of three hosts that do not exist", labels(110), deep(3, false), "more than 8 zone cuts", CodeLookBudget},
		{"20 cuts of one host", labels(20), deep(0, false), "more than 8 zone cuts", CodeLookBudget},
		{"110 cuts of a dead server each", labels(110), deep(0, true), "30s", CodeLookBudget},
		{"aliases through zones of 32 servers", "v.z0.test.", fanOut, "150 questions", CodeLookBudget},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newMaze(t, tt.alias, tt.answer)
				c := n.checker()
				for round := range 2 {
					began := time.Now()
					r := c.Look(t.Context(), target)
					asked, took := n.count(), time.Since(began)
					t.Logf("look %d: %d questions (%d counted), %s, %d servers: %v", round+1, asked, r.Questions, took, len(r.Servers), r.Err)
					if asked > ask.MaxQuestions || r.Questions > ask.MaxQuestions || asked > r.Questions {
						t.Errorf("look %d: %d questions, %d counted, at most %d are allowed", round+1, asked, r.Questions, ask.MaxQuestions)
					}
					if took > ask.LookPatience {
						t.Errorf("look %d took %s", round+1, took)
					}
					rep := c.NewGate().Observe(r)
					if rep.Status != StatusBlocked || !slices.Contains(rep.Codes(), tt.code) || !strings.Contains(rep.Reason, tt.says) {
						t.Errorf("look %d: %s %v", round+1, rep.Summary(), rep.Codes())
					}
				}
			})
		})
	}
}

// What a look may cost is the look's: a diagnosis, a check and CAA have bounds as well.
func TestCommandsHaveABudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newMaze(t, labels(110), deep(31, true))
		c := n.checker()
		for _, tt := range []struct {
			what string
			most int
			time time.Duration
			do   func()
		}{
			{"Check", ask.MaxQuestions, ask.LookPatience, func() { c.Check(t.Context(), target, c.NewGate()) }},
			{"Diagnose", ask.MaxQuestions + 30, 2 * ask.LookPatience, func() { c.Diagnose(t.Context(), target) }},
			{"CAA", ask.MaxQuestions, ask.LookPatience, func() { c.CAA(t.Context(), labels(120), time.Now()) }},
		} {
			n.count()
			began := time.Now()
			tt.do()
			if asked, took := n.count(), time.Since(began); asked > tt.most || took > tt.time {
				t.Errorf("%s: %d questions in %s, want at most %d in %s", tt.what, asked, took, tt.most, tt.time)
			}
		}
	})
}

// Zones as big as there are cost less than two thirds of the budget.
func TestHonestZonesStayInTheBudget(t *testing.T) {
	for _, tt := range []struct {
		hosts, targetHosts int
	}{{4, 0}, {8, 0}, {13, 4}, {16, 4}} {
		synctest.Test(t, func(t *testing.T) {
			n := newMaze(t, "v.big.test.", honest(map[string]int{"big.test.": tt.hosts, "target.test.": tt.targetHosts}))
			c := n.checker()
			g := c.NewGate()
			n.count()
			name := Target{Name: "_validation-persist.www.big.test", Host: "www.big.test", Accept: accept}
			g.Observe(c.Look(t.Context(), name))
			cold := n.count()
			rep := g.Observe(c.Look(t.Context(), name))
			warm := n.count()
			t.Logf("%d hosts and an alias to %d: %d questions, then %d", tt.hosts, tt.targetHosts, cold, warm)
			if rep.Status != StatusReady {
				t.Errorf("%d hosts: %s", tt.hosts, rep.Summary())
			}
			if cold >= 100 {
				t.Errorf("%d hosts: %d questions", tt.hosts, cold)
			}
			if dropped := tt.hosts > 13; dropped != slices.Contains(rep.Codes(), CodeTooManyServers) {
				t.Errorf("%d hosts: %v", tt.hosts, rep.Codes())
			}
		})
	}
}

// honest are zones with so many hosts of two addresses; the name in the first leads to the
// second, if that has any, where the record is.
func honest(zones map[string]int) func(netip.Addr, dns.Question, *dns.Msg) error {
	return func(addr netip.Addr, q dns.Question, m *dns.Msg) error {
		name := dns.CanonicalName(q.Name)
		for zone, hosts := range zones {
			if name == "test." {
				m.Ns = []dns.RR{rr("test. 300 SOA ns.test. h.test. 1 1 1 1 60")}
				return nil
			}
			if !dns.IsSubDomain(zone, name) {
				continue
			}
			m.Authoritative = addr.String() != mazeResolver
			switch {
			case q.Qtype == dns.TypeNS && name == zone:
				for i := range hosts {
					m.Answer = append(m.Answer, rr("%s 300 NS n%d.%s", zone, i, zone))
				}
			case q.Qtype == dns.TypeA && strings.HasPrefix(name, "n"):
				m.Answer = []dns.RR{rr("%s 300 A 198.51.%d.%s", name, len(zone), name[1:strings.Index(name, ".")])}
			case q.Qtype == dns.TypeAAAA && strings.HasPrefix(name, "n"):
				m.Answer = []dns.RR{rr("%s 300 AAAA 2001:db8:%d::%s", name, len(zone), name[1:strings.Index(name, ".")])}
			case q.Qtype == dns.TypeTXT && zone == "big.test." && zones["target.test."] > 0:
				m.Answer = []dns.RR{rr("%s 300 CNAME v.target.test.", name)}
			case q.Qtype == dns.TypeTXT:
				m.Answer = []dns.RR{rr("%s 300 TXT %q", name, wantedValue)}
			default:
				m.Ns = []dns.RR{rr("%s 300 SOA n0.%s h.%s 1 1 1 1 60", zone, zone, zone)}
			}
			return nil
		}
		m.Rcode = dns.RcodeNameError
		return nil
	}
}

// A look that runs out of its budget is no proof, and takes nothing back of what was seen.
func TestBudgetSpoilsNothing(t *testing.T) {
	over := func(states string, minute int) Round {
		r := roundOf(states, time.Duration(minute)*time.Minute)
		for i := range r.Servers {
			if r.Servers[i].Verdict == VerdictSilent {
				r.Servers[i].Defect = CodeNotAsked
			}
		}
		r.Err = ask.Coded(CodeLookBudget, errors.New("150 questions were asked"))
		return r
	}
	g := NewGate(time.Minute, time.Second)
	g.Observe(roundOf("y n", 0))
	was := g.Observe(roundOf("y y", time.Minute))
	rep := g.Observe(over("s s", 2))
	if rep.Status != StatusBlocked || rep.FirstYes != was.FirstYes || len(rep.Servers) != 2 || rep.Servers[0].Verdict != VerdictYes {
		t.Errorf("a look that was cut short took something back: %s, first yes %s, %+v", rep.Status, rep.FirstYes, rep.Servers)
	}
	if rep := g.Observe(over("y y", 3)); rep.Status == StatusReady {
		t.Error("ready by a look that was cut short")
	}
	if rep := g.Observe(roundOf("y y", 4*time.Minute)); rep.Status != StatusReady {
		t.Errorf("after two complete looks with one between that was cut short: %s", rep.Summary())
	}
	if rep := g.Observe(over("n s", 5)); !rep.FirstYes.Equal(was.FirstYes) || rep.Status != StatusBlocked {
		t.Errorf("%s, first yes %s", rep.Status, rep.FirstYes)
	}
	if rep := g.Observe(roundOf("y y", 6*time.Minute)); rep.Status == StatusReady {
		t.Error("ready at once although a server answered no")
	}
}
