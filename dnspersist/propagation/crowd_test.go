package propagation

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation/internal/ask"
)

var crowdAll = flag.Bool("crowd.all", false, "measure good names beside bad ones in all combinations")

// crowdNet is an Internet without sockets: good zones with two servers each, good1.test to
// good5.test, and zones of bad names, whose servers do what kind says. Who has which address
// is where's choice.
type crowdNet struct {
	kind, where string
	published   atomic.Bool // the good records
	questions   atomic.Int64
}

// crowdLatency is how long every answer takes that comes at all.
const crowdLatency = 20 * time.Millisecond

// badHost is the i-th bad name.
func (n *crowdNet) badHost(i int) string {
	if n.where == "one domain" {
		return fmt.Sprintf("h%d.bad.test", i)
	}
	return fmt.Sprintf("www.bad%d.test", i)
}

func (n *crowdNet) Exchange(ctx context.Context, network, addr string, query *dns.Msg) (*dns.Msg, error) {
	n.questions.Add(1)
	q := query.Question[0]
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	m := new(dns.Msg).SetReply(query)
	took := crowdLatency
	switch {
	case host == "192.0.2.53":
		n.resolve(m, strings.ToLower(q.Name), q.Qtype)
	case strings.HasPrefix(host, "192.0.2."):
		m.Authoritative = true
		if n.published.Load() && q.Qtype == dns.TypeTXT && strings.HasPrefix(q.Name, "_validation-persist.h") {
			m.Answer = rrs(fmt.Sprintf("%s 300 TXT %q", q.Name, wantedValue))
		} else {
			m.Rcode, m.Ns = dns.RcodeNameError, rrs(crowdSOA(crowdZone(q.Name)))
		}
	default:
		took = n.bad(m, network, host)
	}
	patience := ask.DefaultUDPTimeout
	if network == "tcp" {
		patience = ask.DefaultTCPTimeout
	}
	timer := time.NewTimer(min(took, patience))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if took > patience {
		return nil, errors.New("i/o timeout")
	}
	return m, nil
}

// bad is how a server of bad names answers, and after what time.
func (n *crowdNet) bad(m *dns.Msg, network, addr string) time.Duration {
	q := m.Question[0]
	zone := crowdZone(q.Name)
	m.Authoritative = true
	switch n.kind {
	case "silent":
		return time.Hour
	case "drip":
		if network == "tcp" {
			return time.Hour
		}
		m.Truncated = true
	case "60 KB":
		if network == "udp" {
			m.Truncated = true
			break
		}
		for i := range 60 {
			m.Answer = append(m.Answer, &dns.TXT{
				Hdr: dns.RR_Header{Name: q.Name, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: 300},
				Txt: slices.Repeat([]string{fmt.Sprintf("%0250d", i)}, 4),
			})
		}
	case "fan-out":
		labels := dns.SplitDomainName(q.Name)
		if len(labels) < 8 {
			if q.Qtype == dns.TypeTXT {
				m.Answer = rrs(fmt.Sprintf("%s 300 CNAME %s%s", q.Name, strings.Repeat("d.", 6), zone))
			}
			break
		}
		// whoever asks for more than the zone above is sent one label further, to one server
		// that is, and to hosts that are not
		cut := n.lastCut(addr) + 1
		m.Authoritative = false
		below := strings.Join(labels[len(labels)-min(cut, len(labels)):], ".") + "."
		for i := range 12 {
			m.Ns = append(m.Ns, rrs(fmt.Sprintf("%s 60 NS none%d.%s", below, i, zone))...)
		}
		m.Ns = append(m.Ns, rrs(fmt.Sprintf("%s 60 NS cut%d.%s", below, cut, zone))...)
	}
	if len(m.Answer)+len(m.Ns) == 0 {
		m.Ns = rrs(crowdSOA(zone))
	}
	return crowdLatency
}

// lastCut is how many labels the zone has that the server at addr is for.
func (n *crowdNet) lastCut(addr string) int {
	return max(int(net.ParseIP(addr).To4()[1]), 2)
}

// resolve answers as a resolver that knows all zones.
func (n *crowdNet) resolve(m *dns.Msg, name string, qtype uint16) {
	m.RecursionAvailable = true
	zone := crowdZone(name)
	labels := dns.SplitDomainName(name)
	var number int
	if _, err := fmt.Sscanf(zone, "bad%d.", &number); err != nil || n.where == "one address" {
		number = 0
	}
	switch {
	case len(labels) < 2:
		m.Ns = rrs("test. 300 SOA ns.test. h.test. 1 3600 600 86400 60")
		return
	case name == zone && qtype == dns.TypeNS:
		m.Answer = rrs(name+" 3600 NS ns1."+name, name+" 3600 NS ns2."+name)
	case len(labels) == 3 && qtype == dns.TypeA && strings.HasPrefix(zone, "good"):
		m.Answer = rrs(fmt.Sprintf("%s 3600 A 192.0.2.%d%s", name, zone[4]-'0', labels[0][2:]))
	case len(labels) == 3 && qtype == dns.TypeA && labels[0] == "ns1":
		m.Answer = rrs(fmt.Sprintf("%s 3600 A 11.0.%d.%d", name, number/200, number%200+1))
	case len(labels) == 3 && qtype == dns.TypeA && labels[0] == "ns2" && n.where == "one address in common":
		m.Answer = rrs(name + " 3600 A 12.0.0.1")
	case len(labels) == 3 && qtype == dns.TypeA && labels[0] == "ns2":
		m.Answer = rrs(fmt.Sprintf("%s 3600 A 12.0.%d.%d", name, number/200, number%200+1))
	case len(labels) == 3 && qtype == dns.TypeA && strings.HasPrefix(labels[0], "cut"):
		m.Answer = rrs(fmt.Sprintf("%s 3600 A 13.%s.%d.%d", name, labels[0][3:], number/200, number%200+1))
	case strings.HasPrefix(labels[0], "none"):
		m.Rcode = dns.RcodeNameError
	}
	if soa := rrs(crowdSOA(zone)); name == zone && qtype == dns.TypeSOA {
		m.Answer = soa
	} else if len(m.Answer) == 0 {
		m.Ns = soa
	}
}

func crowdZone(name string) string {
	labels := dns.SplitDomainName(strings.ToLower(name))
	return strings.Join(labels[max(len(labels)-2, 0):], ".") + "."
}

func crowdSOA(zone string) string {
	return zone + " 300 SOA ns1." + zone + " h." + zone + " 7 3600 600 86400 60"
}

var parsed sync.Map

// rrs parses records, which are written in a test.
func rrs(texts ...string) (all []dns.RR) {
	for _, text := range texts {
		rr, ok := parsed.Load(text)
		if !ok {
			fresh, err := dns.NewRR(text)
			if err != nil {
				panic(err)
			}
			rr, _ = parsed.LoadOrStore(text, fresh)
		}
		all = append(all, dns.Copy(rr.(dns.RR)))
	}
	return all
}

// crowd is one measurement: how long after their records were published the good names were
// ready.
type crowd struct {
	kind, where string
	bad         int
	good        []string      // hosts
	after       time.Duration // when the good records are published
	looked      bool          // somebody has looked at every name before it is watched, as attempts do
}

func (c crowd) run(t *testing.T) (took []time.Duration) {
	synctest.Test(t, func(t *testing.T) {
		n := &crowdNet{kind: c.kind, where: c.where}
		s := NewScheduler(SchedulerConfig{})
		defer s.Close()
		checker := NewChecker(Config{Resolvers: []string{"192.0.2.53"}, Exchanger: n})
		var (
			mu        sync.Mutex
			wg        sync.WaitGroup
			ready     = make(map[string]time.Time)
			published time.Time
		)
		watch := func(host string, notify func(Report)) {
			target := Target{Name: "_validation-persist." + host, Host: host, Accept: target.Accept}
			var g *Gate
			if c.looked {
				g = checker.NewGate()
				checker.Check(t.Context(), target, g)
			}
			s.Watch(host, checker, target, g, notify)
		}
		for i := range c.bad {
			wg.Go(func() { watch(n.badHost(i), nil) })
		}
		for _, host := range c.good {
			wg.Go(func() {
				watch(host, func(r Report) {
					mu.Lock()
					defer mu.Unlock()
					if _, ok := ready[host]; !ok && r.Status == StatusReady {
						ready[host] = time.Now()
					}
				})
			})
		}
		wg.Wait()
		time.Sleep(c.after)
		published = time.Now()
		n.published.Store(true)
		done := func() bool {
			mu.Lock()
			defer mu.Unlock()
			return len(ready) == len(c.good)
		}
		for !done() && time.Since(published) < 5*time.Minute {
			time.Sleep(50 * time.Millisecond)
		}
		mu.Lock()
		defer mu.Unlock()
		for _, host := range c.good {
			at, ok := ready[host]
			if !ok {
				at = published.Add(time.Hour)
			}
			took = append(took, at.Sub(published))
		}
	})
	slices.Sort(took)
	return took
}

func goodHosts(names, domains int) (hosts []string) {
	for i := range names {
		hosts = append(hosts, fmt.Sprintf("h%d.good%d.test", i, i%domains+1))
	}
	return hosts
}

// Names that cost much hold up themselves, and never those of others, whoever they belong to
// and wherever their servers are.
func TestBadNamesStarveThemselves(t *testing.T) {
	t.Parallel()
	kinds, sizes := []string{"fan-out", "drip", "60 KB", "silent"}, []int{300}
	waits, goods := []time.Duration{30 * time.Second}, [][]string{goodHosts(20, 1)}
	if *crowdAll {
		sizes = []int{40, 300, 600}
		waits, goods = append(waits, 0, 2*time.Minute), append(goods, goodHosts(5, 5))
	}
	for _, wait := range waits {
		for _, good := range goods {
			c := crowd{good: good, after: wait, looked: true}
			alone := slices.Max(c.run(t))
			for _, c.kind = range kinds {
				for _, c.where = range []string{"one domain", "own domains", "one address"} {
					for _, c.bad = range sizes {
						took, most := slices.Max(c.run(t)), alone*3/2+3*time.Second
						beside := fmt.Sprintf("%d good names beside %d bad ones (%s, %s), published after %v: ready after %v, alone after %v",
							len(good), c.bad, c.kind, c.where, wait, took.Round(time.Millisecond), alone.Round(time.Millisecond))
						if t.Log(beside); took > most {
							t.Errorf("%s: too late", beside)
						}
					}
				}
			}
		}
	}
}

// Names that nobody has looked at before do no harm either where they belong to one owner.
func TestBadNewNamesStarveThemselves(t *testing.T) {
	t.Parallel()
	c := crowd{good: goodHosts(5, 5), after: 0}
	alone := slices.Max(c.run(t))
	for _, c.kind = range []string{"fan-out", "drip", "silent"} {
		c.where, c.bad = "one domain", 300
		if took := slices.Max(c.run(t)); took > alone*3/2+3*time.Second {
			t.Errorf("beside %d bad ones (%s): ready after %v, alone after %v", c.bad, c.kind, took, alone)
		}
	}
}

// Nor do names of many owners that are answered at once, and whose name servers differ in all
// but one address: whoever waits for its rate would wait with a worker in hand.
func TestNamesWithOneAddressInCommonStarveThemselves(t *testing.T) {
	t.Parallel()
	c := crowd{good: goodHosts(20, 1), after: 30 * time.Second, looked: true}
	alone := slices.Max(c.run(t))
	c.kind, c.where = "quick", "one address in common"
	for _, c.bad = range []int{300, 600} {
		took := slices.Max(c.run(t))
		t.Logf("beside %d: ready after %v, alone after %v", c.bad, took, alone)
		if took > alone*3/2+3*time.Second {
			t.Errorf("beside %d: ready after %v, alone after %v", c.bad, took, alone)
		}
	}
}
