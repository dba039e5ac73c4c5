//go:build unix

package realdns

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
)

const (
	host  = "www.example.test"
	name  = "_validation-persist." + host
	value = "ca.example; accounturi=https://ca.example/acct/1"
	add   = "add " + name + ". 60 TXT \"" + value + "\""

	grace, settle = 2 * time.Second, 500 * time.Millisecond
	tick          = 100 * time.Millisecond
)

// ns is the part of a zone that makes its servers known: ns1 is at 192.0.2.1 and so on.
func ns(origin string, servers ...int) string {
	text := ""
	for _, n := range servers {
		text += fmt.Sprintf("@ NS ns%d.%s.\nns%d A 192.0.2.%d\n", n, origin, n, n)
	}
	return text
}

// world is servers at virtual addresses, as the checker sees them, and the CA's resolver.
type world struct {
	t       *testing.T
	servers map[string]*Server // by "192.0.2.n:53"
	oracle  *Server
	net     propagation.NetExchanger
}

// newWorld puts servers at 192.0.2.1, 192.0.2.2 and so on.
func newWorld(t *testing.T, oracle *Server, servers ...*Server) *world {
	w := &world{t: t, servers: make(map[string]*Server), oracle: oracle, net: propagation.NetExchanger{UDPTimeout: 500 * time.Millisecond, TCPTimeout: time.Second}}
	for i, s := range servers {
		w.servers[fmt.Sprintf("192.0.2.%d:53", i+1)] = s
	}
	return w
}

// Exchange implements propagation.Exchanger.
func (w *world) Exchange(ctx context.Context, network, addr string, query *dns.Msg) (*dns.Msg, error) {
	if s := w.servers[addr]; s != nil {
		addr = s.Addr()
	}
	return w.net.Exchange(ctx, network, addr, query)
}

func (w *world) checker() *propagation.Checker {
	return propagation.NewChecker(propagation.Config{
		Resolvers: []string{w.oracle.Addr()}, Exchanger: w, Grace: grace, Settle: settle, AllowPrivate: true,
	})
}

var target = propagation.Target{Name: name, Host: host, Accept: func(values []string) (bool, string) {
	return slices.Contains(values, value), "no record for this account"
}}

// wait looks until the status is reached, and returns the report.
func (w *world) wait(g *propagation.Gate, want propagation.Status) propagation.Report {
	w.t.Helper()
	c := w.checker()
	var rep propagation.Report
	Eventually(w.t, "the status "+string(want), func() error {
		rep = c.Check(w.t.Context(), target, g)
		if rep.Status == want {
			return nil
		}
		return fmt.Errorf("%s", rep.Summary())
	})
	return rep
}

// ready checks both properties from now on: the record is not ready before the CA's
// resolver would find it at each try, and is soon after.
func (w *world) ready(g *propagation.Gate) propagation.Report {
	w.t.Helper()
	c := w.checker()
	var rep propagation.Report
	var first time.Time
	Eventually(w.t, "the record to be ready", func() error {
		if first.IsZero() && w.oracle.Fresh(name, value, 20) == nil {
			first = time.Now()
		}
		rep = c.Check(w.t.Context(), target, g)
		if rep.Status != propagation.StatusReady {
			return fmt.Errorf("%s", rep.Summary())
		}
		return nil
	})
	opened := time.Now()
	if err := w.oracle.Fresh(name, value, 20); err != nil {
		w.t.Errorf("P1: the record is ready, but %v; %s", err, rep.Summary())
	}
	// a look at a silent server takes the time-outs of this test
	const looks = 2 * (2*500*time.Millisecond + time.Second)
	// tests run beside each other, with a name server or three each
	const busy = 10 * time.Second
	if late := opened.Sub(first); !first.IsZero() && late > tick+grace+settle+looks+busy {
		w.t.Errorf("P2: the record was ready %s after it could be found", late)
	}
	return rep
}

func hasCode(t *testing.T, rep propagation.Report, codes ...propagation.Code) {
	t.Helper()
	for _, code := range codes {
		if !slices.Contains(rep.Codes(), code) {
			t.Errorf("codes %v lack %s: %s", rep.Codes(), code, rep.Summary())
		}
	}
}

func gate() *propagation.Gate { return propagation.NewGate(grace, settle) }
