package propagation

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation/internal/ask"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation/internal/zones"
)

// hostileWorld is an Internet in which each question of a server gets a message made up of the
// seed and the question: referrals, CNAMEs, hosts with and without addresses, much text, lies
// about sections and bits, silence.
func hostileWorld(seed uint64) func(netip.Addr, dns.Question, *dns.Msg) error {
	return func(addr netip.Addr, q dns.Question, m *dns.Msg) error {
		name := dns.CanonicalName(q.Name)
		var sum uint64 = 14695981039346656037
		for _, b := range []byte(fmt.Sprint(addr, name, q.Qtype)) {
			sum = (sum ^ uint64(b)) * 1099511628211
		}
		r := rand.New(rand.NewPCG(seed, sum))
		m.Authoritative, m.RecursionAvailable = r.IntN(4) > 0, r.IntN(4) == 0
		if addr.String() == mazeResolver {
			m.Authoritative, m.RecursionAvailable = false, true
		}
		cut := name
		for range r.IntN(dns.CountLabel(name) + 1) {
			cut = zones.Parent(cut)
		}
		somewhere := func() string {
			switch r.IntN(4) {
			case 0:
				return fmt.Sprintf("h%d.%s", r.IntN(40), cut)
			case 1:
				return strings.Repeat("a.", r.IntN(100)) + "evil.test."
			case 2:
				return fmt.Sprintf("v.z%d.test.", r.IntN(30))
			}
			return name
		}
		address := func() string { return fmt.Sprintf("%d.%d.%d.%d", 1+r.IntN(220), r.IntN(256), r.IntN(256), r.IntN(256)) }
		add := func(to *[]dns.RR, format string, args ...any) {
			if record, err := dns.NewRR(fmt.Sprintf(format, args...)); err == nil && record != nil {
				*to = append(*to, record)
			}
		}
		switch r.IntN(12) {
		case 0:
			return errors.New("i/o timeout")
		case 1:
			m.Rcode = r.IntN(6)
		}
		sections := []*[]dns.RR{&m.Answer, &m.Ns, &m.Extra}
		for range r.IntN(4) {
			to := sections[r.IntN(3)]
			switch r.IntN(6) {
			case 0:
				add(to, "%s 60 SOA ns.%s h.%s 1 1 1 1 60", cut, cut, cut)
			case 1:
				for range r.IntN(40) {
					add(to, "%s 60 NS %s", cut, somewhere())
				}
			case 2:
				add(to, "%s 60 CNAME %s", name, somewhere())
			case 3:
				for range r.IntN(30) {
					add(to, "%s 60 TXT %q", name, strings.Repeat("x", r.IntN(250)))
				}
			case 4:
				for range r.IntN(40) {
					add(to, "%s 60 A %s", name, address())
				}
			case 5:
				add(to, "%s 60 A %s", somewhere(), address())
			}
		}
		return nil
	}
}

// FuzzLook looks at names in worlds without rules: no look costs more than it may, all of them
// end, nothing is ready, and little is kept.
func FuzzLook(f *testing.F) {
	for seed := range uint64(20) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		synctest.Test(t, func(t *testing.T) {
			world := hostileWorld(seed)
			alias := strings.Repeat("a.", int(seed%60)) + "evil.test."
			n := newMaze(t, alias, world)
			c := n.checker()
			g := c.NewGate()
			n.count()
			for look := range 3 {
				began := time.Now()
				r := c.Look(t.Context(), target)
				if asked := n.count(); asked > ask.MaxQuestions || r.Questions > ask.MaxQuestions {
					t.Errorf("look %d: %d questions, %d counted", look, asked, r.Questions)
				}
				if took := time.Since(began); took > ask.LookPatience+time.Second {
					t.Errorf("look %d took %s", look, took)
				}
				if rep := g.Observe(r); rep.Status == StatusReady {
					t.Errorf("look %d: ready in a world without the record: %s", look, rep.Summary())
				}
				kept := g.Report()
				size := 0
				for _, s := range kept.Servers {
					size += len(s.Host) + len(s.Reason) + len(s.Addr)
				}
				if size > maxKept || len(kept.Values) > maxKeptCount {
					t.Errorf("look %d: %d octets of %d servers are kept, %d values", look, size, len(kept.Servers), len(kept.Values))
				}
			}
		})
	})
}
