package propagation

import (
	"context"
	"errors"
	"flag"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation/internal/ask"
)

var (
	chaosFor  = flag.Duration("chaos.for", 12*time.Hour, "simulated time of the chaos test")
	chaosSeed = flag.Uint64("chaos.seed", 0, "its seed, 0 for a new one")
)

// chaosNet is example.test at four servers that behave anew at each query: right, silent,
// failing, lame, truncated, with another case. What a server has changes at random times
// and is known to the test.
type chaosNet struct {
	mu      sync.Mutex
	rand    *rand.Rand
	has     [4]bool
	bad     float64 // share of queries that go wrong
	mem     *memNet
	queries int
}

func (n *chaosNet) Exchange(ctx context.Context, network, addr string, query *dns.Msg) (*dns.Msg, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	server := -1
	for i := range n.has {
		if addr == net.JoinHostPort(chaosAddr(i), "53") {
			server = i
		}
	}
	if server < 0 {
		return n.mem.Exchange(ctx, network, addr, query)
	}
	n.queries++
	m := new(dns.Msg).SetReply(query)
	m.Authoritative = true
	soa, err := dns.NewRR("example.test. 300 SOA ns1.example.test. h.example.test. 7 3600 600 86400 120")
	if err != nil {
		return nil, err
	}
	if n.rand.Float64() < n.bad {
		switch n.rand.IntN(6) {
		case 0:
			return nil, errors.New("i/o timeout")
		case 1:
			m.Rcode = dns.RcodeServerFailure
		case 2:
			m.Rcode = dns.RcodeRefused
		case 3:
			m.Authoritative = false
		case 4:
			m.Truncated = true
		case 5:
			return nil, ask.ErrBadReply
		}
		return m, nil
	}
	if query.Question[0].Qtype != dns.TypeTXT || !n.has[server] {
		m.Ns = []dns.RR{soa}
		if n.rand.IntN(2) == 0 && query.Question[0].Qtype == dns.TypeTXT {
			m.Rcode = dns.RcodeNameError
		}
		return m, nil
	}
	m.Answer = []dns.RR{&dns.TXT{
		Hdr: dns.RR_Header{Name: query.Question[0].Name, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: 300}, Txt: []string{wantedValue},
	}}
	return m, nil
}

func chaosAddr(i int) string {
	return []string{"192.0.2.11", "192.0.2.12", "192.0.2.13", "192.0.2.14"}[i]
}

// Whatever servers do, a record is never ready while one of them would answer without it;
// it is in the end once all have it; and the budget of queries is kept.
func TestChaos(t *testing.T) {
	t.Parallel()
	seed := *chaosSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d", seed)
	synctest.Test(t, func(t *testing.T) {
		n := &chaosNet{rand: rand.New(rand.NewPCG(seed, 1)), bad: 0.4, mem: newMemNet(t)}
		n.mem.servers["192.0.2.53:53"].load(t, `example.test. SOA ns1.example.test. h.example.test. 7 3600 600 86400 120
example.test. NS a.example.test.
example.test. NS b.example.test.
example.test. NS c.example.test.
example.test. NS d.example.test.
a.example.test. A 192.0.2.11
b.example.test. A 192.0.2.12
c.example.test. A 192.0.2.13
d.example.test. A 192.0.2.14
`)
		s := NewScheduler(SchedulerConfig{})
		defer s.Close()
		c := NewChecker(Config{Resolvers: []string{"192.0.2.53"}, Exchanger: n})
		dice := rand.New(rand.NewPCG(seed, 2))
		began, opened, waits := time.Now(), 0, 0
		for time.Since(began) < *chaosFor {
			n.mu.Lock()
			clear(n.has[:])
			n.bad = 0.5 * dice.Float64()
			asked := n.queries
			n.mu.Unlock()
			ready := make(chan Report, 1)
			start := time.Now()
			stop := s.Watch("k", c, target, nil, func(r Report) {
				if r.Status != StatusReady {
					return
				}
				n.mu.Lock()
				defer n.mu.Unlock()
				for i, has := range n.has {
					if !has {
						t.Errorf("ready although server %d does not have the record: %s", i, r.Summary())
					}
				}
				select {
				case ready <- r:
				default:
				}
			})
			// the servers get the record one after another, and may lose it again
			for _, i := range dice.Perm(len(n.has)) {
				time.Sleep(time.Duration(dice.IntN(180)) * time.Second)
				n.mu.Lock()
				n.has[i] = true
				if other := dice.IntN(len(n.has)); dice.IntN(4) == 0 && other != i {
					n.has[other] = false
				}
				n.mu.Unlock()
			}
			time.Sleep(time.Duration(dice.IntN(60)) * time.Second)
			n.mu.Lock()
			n.has = [4]bool{true, true, true, true}
			n.mu.Unlock()
			all := time.Now()
			select {
			case <-ready:
				opened++
			case <-time.After(2 * time.Hour):
				n.mu.Lock()
				if n.bad < 0.35 { // beyond that it is for the certificate's clock
					t.Errorf("not ready two hours after all servers had the record, with %.0f %% of the answers wrong", 100*n.bad)
				}
				n.mu.Unlock()
			}
			if took := time.Since(all); took > time.Hour {
				waits++
			}
			stop()
			n.mu.Lock()
			if spent := n.queries - asked; float64(spent) > 400+75*time.Since(start).Minutes() {
				t.Errorf("%d queries in %s", spent, time.Since(start))
			}
			n.mu.Unlock()
			time.Sleep(time.Minute)
		}
		t.Logf("opened %d times, %d of them late, %d queries", opened, waits, n.queries)
		if opened == 0 {
			t.Error("the gate never opened")
		}
	})
}
