//go:build long && unix

package cluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/internal/e2e/harness"
	"github.com/dnspersist/caddy-dnspersist/internal/tuning"
)

func TestMain(m *testing.M) { harness.MainInTurn(m) }

const (
	// fleet is how many certificates a cluster has, few one to which something happens.
	fleet, few = 300, 90
	// lanes is how many orders a node has under way at most, see max_parallel_orders.
	lanes = 4
	// inWork is how many domains may be past the order and not in storage yet on one node: those in a lane, and as
	// many that have their certificate and are being stored.
	inWork = 2 * lanes
	// calm is how long after a fault is over everything has to be served. It is a minute; the machine may be
	// busy with the tests of other packages.
	calm = 90 * time.Second
)

// world is a cluster of three nodes, with a Redis, a CA and name servers.
type world struct {
	*harness.Env
	redis *server
	nodes []*node
	names []string
	// account is the URL of the one that was bound before the nodes started; empty if none was.
	account string
	// block is the issuer's block.
	block string
}

// node is a Caddy process, or its place while it is down.
type node struct {
	*harness.Process
	world *world
	proxy *proxy
	home  string // of the machine that it stands for
	ahead time.Duration
}

// newWorld makes a cluster with so many names; start starts it. The records of the names are not published.
func newWorld(t *testing.T, names int, o harness.Options) *world {
	t.Helper()
	change := o.Tuning
	o.Tuning = func(v *tuning.Values) {
		v.Lease = 2 * time.Second
		if change != nil {
			change(v)
		}
	}
	r := startRedis(t)
	w := &world{Env: harness.New(t, o), redis: r}
	w.block = w.Block(fmt.Sprintf("max_parallel_orders %d", lanes))
	for i := range names {
		w.names = append(w.names, w.Name(fmt.Sprintf("site%03d", i)))
	}
	for range 3 {
		w.nodes = append(w.nodes, &node{world: w, proxy: startProxy(t, r.socket()), home: t.TempDir()})
	}
	return w
}

// bind binds the account before any node runs.
func (w *world) bind() {
	w.T.Helper()
	st := &storage{client: redis.NewClient(&redis.Options{Network: "unix", Addr: w.redis.socket()})}
	defer func() { _ = st.Cleanup() }()
	iss := acmepersist.New(acmepersist.Config{CA: w.CA.Directory(), Storage: st, Transport: w.CA.HTTPClient().Transport})
	account, err := iss.Account(w.T.Context())
	if err != nil {
		w.T.Fatal(err)
	}
	w.account = account.URL
}

// publish publishes the records of some names.
func (w *world) publish(some []string) {
	for _, name := range some {
		w.Publish(name, w.Value(w.account, false))
	}
}

// start starts all nodes at once.
func (w *world) start() {
	w.T.Helper()
	for _, n := range w.nodes {
		n.start()
	}
}

// start starts the node, again if it was killed.
func (n *node) start() {
	w := n.world
	w.T.Helper()
	e := *w.Env
	e.StorageModule, e.ClockAhead = "redis_for_tests "+n.proxy.address, n.ahead
	p, err := e.Process(w.Storage, func(e *harness.Env) string { return e.Site(strings.Join(w.names, ", "), w.block) })
	if err != nil {
		w.T.Fatal(err)
	}
	p.Cmd.Env = append(p.Cmd.Env, "XDG_DATA_HOME="+n.home)
	if err := p.Cmd.Start(); err != nil {
		w.T.Fatal(err)
	}
	n.Process = p
	w.T.Cleanup(func() {
		if n.Process != p {
			return // it was killed
		}
		if err := p.End(); err != nil {
			w.T.Errorf("a Caddy process ended badly: %v", err)
		}
	})
}

// kill ends the node at once.
func (n *node) kill() {
	n.world.T.Helper()
	n.signal(syscall.SIGKILL)
	_ = n.Cmd.Wait()
	n.Process = nil
}

func (n *node) signal(s os.Signal) {
	n.world.T.Helper()
	if err := n.Cmd.Process.Signal(s); err != nil {
		n.world.T.Fatal(err)
	}
}

// unserved are the names that the node does not serve with a certificate of the CA.
func (n *node) unserved(some []string) []string {
	var mu sync.Mutex
	var not []string
	var wg sync.WaitGroup
	for part := range slices.Chunk(some, len(some)/4+1) {
		wg.Go(func() {
			for _, name := range part {
				if _, err := n.Trusted(name); err != nil {
					mu.Lock()
					not = append(not, name)
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	return not
}

// serves waits until some nodes serve some names.
func (w *world) serves(within time.Duration, some []string, nodes ...*node) {
	w.T.Helper()
	began := time.Now()
	ctx, cancel := context.WithTimeout(w.T.Context(), within)
	defer cancel()
	for i, n := range nodes {
		left := some
		for len(left) > 0 {
			if left = n.unserved(left); len(left) == 0 {
				break
			}
			if ctx.Err() != nil {
				_, err := n.Trusted(left[0])
				w.T.Fatalf("node %d does not serve %d of %d names after %s, such as %s: %v\nits log:\n%s\nof that name:\n%s",
					i, len(left), len(some), within, left[0], err, n.LogTail(30), w.history(left[0]))
			}
			tick := time.NewTimer(100 * time.Millisecond)
			<-tick.C
		}
	}
	w.T.Logf("%d nodes serve %d names after %s: %d orders", len(nodes), len(some), time.Since(began).Round(time.Second/10), len(w.CA.Orders()))
}

// history is what the logs of the nodes have of a name.
func (w *world) history(name string) string {
	var b strings.Builder
	for i, n := range w.nodes {
		if n.Process == nil {
			continue
		}
		data, _ := os.ReadFile(n.LogFile)
		for line := range strings.Lines(string(data)) {
			if strings.Contains(line, name) && len(line) < 2000 && !strings.Contains(line, "handshake") && !strings.Contains(line, "tls_get_certificate") && !strings.Contains(line, "http.stdlib") {
				fmt.Fprintf(&b, "node %d: %s", i, line)
			}
		}
	}
	return b.String()
}

// orders are those of each name.
func (w *world) orders() map[string]int {
	all := make(map[string]int)
	for _, o := range w.CA.Orders() {
		all[o.Identifiers[0]]++
	}
	return all
}

// issued waits until the CA has issued that many certificates.
func (w *world) issued(n int) {
	w.T.Helper()
	w.Eventually(harness.Soon, fmt.Sprintf("%d certificates", n), func() error { return harness.AtLeast(w.CA.Certificates(), n) })
}

// assert checks what the CA has seen: one account, no failed validation, and for each name one order,
// but for a number of names that may have one more.
func (w *world) assert(more int) {
	w.T.Helper()
	if accounts := w.CA.Accounts(); len(accounts) != 1 {
		w.T.Errorf("the CA has %d accounts, want 1: %v", len(accounts), accounts)
	}
	if failed := w.CA.FailedValidations(); len(failed) != 0 {
		w.T.Errorf("the CA saw %d failed validations, want none: %v", len(failed), failed)
	}
	orders := w.orders()
	if len(orders) != len(w.names) {
		w.T.Errorf("the CA saw orders for %d names, want %d", len(orders), len(w.names))
	}
	var several []string
	for _, name := range slices.Sorted(maps.Keys(orders)) {
		if orders[name] > 1 {
			several = append(several, fmt.Sprintf("%s: %d", name, orders[name]))
		}
		if orders[name] > 2+min(more, 1) { // where two were stored across each other another one is made
			w.T.Errorf("the CA saw %d orders for %s\n%s", orders[name], name, w.history(name))
		}
	}
	if w.T.Logf("%d of %d names have a second order", len(several), len(w.names)); len(several) > more {
		w.T.Errorf("%d names have several orders, want %d at most: %v", len(several), more, several)
	}
}

var errNotYet = errors.New("not yet")
