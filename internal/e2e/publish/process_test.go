//go:build unix

package publish

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/dnspersist/caddy-dnspersist/internal/e2e/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// sites are those of a process with the provider.
func sites(a *api, names ...string) func(*harness.Env) string {
	return func(node *harness.Env) string { return node.Site(strings.Join(names, ", "), node.Block(a.block())) }
}

// stored waits for the certificate of a name in a storage.
func stored(e *harness.Env, storage, name string) error {
	node := *e
	node.Storage = storage
	return harness.Eventually(time.Minute, func() error {
		if !node.StoredCertificate(name) {
			return fmt.Errorf("%s has no certificate in storage", name)
		}
		return nil
	})
}

// Two and three Caddys on one storage write each name once.
func TestOneWriteInACluster(t *testing.T) {
	for _, nodes := range []int{2, 3} {
		t.Run(fmt.Sprint(nodes), func(t *testing.T) {
			e, a := newEnv(t, options(0))
			a.lag = time.Second
			names := []string{e.Name("one"), e.Name("two"), e.Name("three")}
			for _, n := range names {
				a.set(vname(n), foreign)
			}
			e.Cluster(nodes, sites(a, names...))
			for _, n := range names {
				if err := stored(e, e.Storage, n); err != nil {
					t.Fatal(err)
				}
			}
			for _, n := range names {
				if w := a.count("append", vname(n)); w != 1 {
					t.Errorf("%s was written %d times, want once", n, w)
				}
				if got := a.at(vname(n)); len(got) != 2 || got[0] != foreign {
					t.Errorf("at %s there are %q", n, got)
				}
			}
			if n := len(e.CA.Accounts()); n != 1 {
				t.Errorf("%d accounts were registered, want 1", n)
			}
		})
	}
}
