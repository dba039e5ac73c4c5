package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dnspersist/caddy-dnspersist/internal/e2e/harness"
	"github.com/dnspersist/caddy-dnspersist/internal/tuning"
)

func TestMain(m *testing.M) { harness.Main(m) }

// cluster are the options of an environment whose nodes look every second which one polls.
func cluster() harness.Options {
	return harness.Options{Tuning: func(v *tuning.Values) { v.Lease = time.Second }}
}

// startCluster starts Caddy processes at once that have all the names.
func startCluster(e *harness.Env, processes int, names []string) []*harness.Env {
	e.T.Helper()
	return e.Cluster(processes, func(node *harness.Env) string { return node.Site(strings.Join(names, ", "), e.Block()) })
}

// Three Caddys on one storage start at once: one account, an order for each site.
func TestThreeProcessesOnOneStorage(t *testing.T) {
	for _, registered := range []bool{true, false} {
		t.Run(fmt.Sprintf("registered before: %v", registered), func(t *testing.T) {
			e := harness.New(t, cluster())
			var names []string
			for i := range 5 {
				names = append(names, e.Name(fmt.Sprintf("site%d", i)))
			}
			if registered {
				value := e.Value(e.Bind(), false)
				for _, n := range names {
					e.Publish(n, value)
				}
			}
			nodes := startCluster(e, 3, names)
			if !registered {
				var value string
				e.Eventually(harness.Soon, "the record to be asked for", func() error {
					for _, node := range nodes {
						for _, l := range node.Logs("publish this TXT record once") {
							value, _ = l["value"].(string)
							return nil
						}
					}
					return fmt.Errorf("no entry")
				})
				for _, n := range names {
					e.Publish(n, value)
				}
			}
			for i, node := range nodes {
				for _, n := range names {
					node.Eventually(90*time.Second, fmt.Sprintf("process %d to serve %s", i, n), func() error {
						_, err := node.Trusted(n)
						return err
					})
				}
			}
			e.AssertClean(5)
			if n := e.CA.Certificates(); n != 5 {
				t.Errorf("the CA issued %d certificates, want 5", n)
			}
		})
	}
}

// Of three Caddys that wait for the same record one polls at the full pace, and all serve
// the certificate that one of them has obtained.
func TestOneNodePolls(t *testing.T) {
	e := harness.New(t, cluster())
	name := e.Name("polled")
	value := e.Value(e.Bind(), false)
	nodes := startCluster(e, 3, []string{name})
	for _, node := range nodes {
		node.Asked(name)
	}
	polls := func() (n int) {
		for _, q := range e.DNS.Queries() {
			if q.Server != 0 && q.Type == "TXT" {
				n++
			}
		}
		return n
	}
	// the lab's shortest and longest intervals are a tenth of a second and a second: three
	// nodes at full pace would ask 30 times in ten seconds when the intervals have grown
	leased := func() error {
		files, _ := filepath.Glob(filepath.Join(e.Storage, "dns_persist", "*", "poller.json"))
		return harness.AtLeast(len(files), 1)
	}
	e.Eventually(harness.Soon, "the lease", leased)
	// intervals grow to a second within ten seconds
	var last int
	e.Eventually(harness.Soon, "the pace of one node", func() error {
		before := polls()
		timer := time.NewTimer(10 * time.Second)
		defer timer.Stop()
		<-timer.C
		if last = polls() - before; last > 16 {
			return fmt.Errorf("%d questions in ten seconds", last)
		}
		return nil
	})
	t.Logf("%d questions in ten seconds", last)
	if last < 5 {
		t.Errorf("%d questions in ten seconds: nobody polls", last)
	}
	e.Publish(name, value)
	for i, node := range nodes {
		node.Eventually(20*time.Second, fmt.Sprintf("process %d to serve it", i), func() error {
			_, err := node.Trusted(name)
			return err
		})
	}
	e.AssertClean(1)
}
