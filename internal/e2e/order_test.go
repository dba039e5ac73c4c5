package e2e

import (
	"testing"
	"time"

	"github.com/dnspersist/caddy-dnspersist/internal/e2e/harness"
	"github.com/dnspersist/caddy-dnspersist/internal/lab"
)

// What is asked of the CA beside the names: a profile, a lifetime.
func TestProfile(t *testing.T) {
	const life = 2 * time.Hour
	e := harness.New(t, harness.Options{CA: lab.CAConfig{Profiles: map[string]time.Duration{"short": life}}})
	name := e.Name("profile")
	e.Publish(name, e.Value(e.Bind(), false))
	e.Load(e.Global() + e.Site(name, e.Block("profile short")))
	cert := e.WaitTrusted(name, harness.Soon)
	if got := cert.NotAfter.Sub(cert.NotBefore); (got - life).Abs() > 2*time.Second {
		t.Errorf("the certificate lives for %s, want the profile's %s", got, life)
	}
	e.AssertClean(1)
}

func TestCertificateLifetime(t *testing.T) {
	const life = 3 * time.Hour
	e := harness.New(t, harness.Options{})
	name := e.Name("lifetime")
	e.Publish(name, e.Value(e.Bind(), false))
	e.Load(e.Global() + e.Site(name, e.Block("lifetime 3h")))
	cert := e.WaitTrusted(name, harness.Soon)
	if got := time.Until(cert.NotAfter); (got - life).Abs() > time.Minute {
		t.Errorf("the certificate ends in %s, want %s", got, life)
	}
	e.AssertClean(1)
}

// The chain that ends in the preferred root is served.
func TestPreferredChain(t *testing.T) {
	e := harness.New(t, harness.Options{CA: lab.CAConfig{AlternateRoots: 2}})
	roots := e.CA.IssuanceRootNames()
	if len(roots) != 3 {
		t.Fatalf("the CA has the roots %v, want 3", roots)
	}
	value := e.Value(e.Bind(), false)
	for i, root := range roots {
		name := e.Name(string(rune('a' + i)))
		e.Publish(name, value)
		e.Load(e.Global() + e.Site(name, e.Block("preferred_chains {\n\t\t\t\troot_common_name \""+root+"\"\n\t\t\t}")))
		e.WaitTrusted(name, harness.Soon)
		if got, err := e.ChainRoot(name); err != nil || got != root {
			t.Errorf("the served chain ends in %q (%v), want %q", got, err, root)
		}
	}
}
