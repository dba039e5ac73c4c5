//go:build long && unix

package cluster

import (
	"fmt"
	"testing"
	"time"

	"github.com/dnspersist/caddy-dnspersist/internal/e2e/harness"
)

// All certificates are renewed, each by one node, and all nodes serve what one has renewed.
func TestRenewals(t *testing.T) {
	w := newWorld(t, fleet, harness.Options{Lifetime: 100 * time.Second})
	w.Options = []string{"renew_interval 2s"}
	w.bind()
	w.publish(w.names)
	w.start()
	w.serves(calm, w.names, w.nodes...)
	began := time.Now()
	w.Eventually(2*calm, "a renewal of each name", func() error {
		for name, orders := range w.orders() {
			if orders < 2 {
				return fmt.Errorf("%s was ordered once", name)
			}
		}
		return nil
	})
	w.Eventually(harness.Soon, "the certificates of what was ordered", func() error {
		return harness.AtLeast(w.CA.Certificates(), 2*len(w.names))
	})
	for i, n := range w.nodes {
		w.Eventually(harness.Soon, fmt.Sprintf("node %d to serve what was renewed", i), func() error {
			for _, name := range w.names {
				cert, err := n.Trusted(name)
				if err != nil {
					return err
				}
				if cert.NotBefore.Before(began.Add(-10 * time.Second)) { // a CA dates a certificate back
					return fmt.Errorf("%s is served with its first certificate", name)
				}
			}
			return nil
		})
	}
	replaced := make(map[string]int)
	for _, o := range w.CA.Orders() {
		replaced[o.Identifiers[0]+" in place of "+o.Replaces]++
	}
	for what, times := range replaced {
		if times > 1 {
			t.Errorf("%s was ordered %d times", what, times)
		}
	}
	if accounts, failed := w.CA.Accounts(), w.CA.FailedValidations(); len(accounts) != 1 || len(failed) != 0 {
		t.Errorf("the CA has %d accounts and %d failed validations, want 1 and none: %v", len(accounts), len(failed), failed)
	}
	t.Logf("%d orders for %d names", len(w.CA.Orders()), len(w.names))
}

// Of the nodes that wait for the same records one polls, whatever happens to them and to Redis.
func TestOneNodePolls(t *testing.T) {
	w := newWorld(t, few, harness.Options{})
	w.names = w.names[:20]
	w.bind()
	const window = 4 * time.Second
	questions := func() (n int) {
		count := func() (n int) {
			for _, q := range w.DNS.Queries() {
				if q.Server != 0 && q.Type == "TXT" {
					n++
				}
			}
			return n
		}
		before := count()
		timer := time.NewTimer(window)
		<-timer.C
		return count() - before
	}
	w.nodes[0].start()
	var alone int
	w.Eventually(calm, "the node's own pace", func() error {
		before := alone
		if alone = questions(); alone == 0 || alone < before*9/10 || alone > before*11/10 {
			return fmt.Errorf("%d questions, before %d", alone, before)
		}
		return nil
	})
	onePolls := func(when string) {
		t.Helper()
		w.Eventually(calm, "the pace of one node "+when, func() error {
			if n := questions(); n < alone/2 || n > alone*7/4 {
				return fmt.Errorf("%d questions in %s, of one node alone %d", n, window, alone)
			}
			return nil
		})
	}
	w.nodes[1].start()
	w.nodes[2].start()
	onePolls("of three")
	w.nodes[0].kill()
	onePolls("after the one that polled was killed")
	w.nodes[0].start()
	onePolls("after it is back")
	w.loseAll()
	onePolls("after Redis has lost the lease")
	w.nodes[1].proxy.cut()
	w.nodes[2].proxy.slow(200 * time.Millisecond)
	w.nodes[1].proxy.mend()
	onePolls("after a node was cut off")
	w.publish(w.names)
	w.serves(calm, w.names, w.nodes...)
	if accounts, failed := w.CA.Accounts(), w.CA.FailedValidations(); len(accounts) != 1 || len(failed) != 0 {
		t.Errorf("the CA has %d accounts and %d failed validations, want 1 and none: %v", len(accounts), len(failed), failed)
	}
}
