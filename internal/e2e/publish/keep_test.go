package publish

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dnspersist/caddy-dnspersist/internal/e2e/harness"
	"github.com/dnspersist/caddy-dnspersist/internal/lab"
)

// A wildcard beside a plain name leads to a wider value first, its use, and then the end of
// the plain one.
func TestPolicyIsWidened(t *testing.T) {
	e, a := newEnv(t, options(12*time.Second))
	name := e.Name("wide")
	a.set(vname(name), foreign)
	e.Load(e.Global("renew_interval 1s") + e.Site(name, e.Block(a.block())))
	e.WaitTrusted(name, harness.Soon)
	plain := a.ours(name)
	if len(plain) != 1 || strings.Contains(plain[0], "policy") {
		t.Fatalf("there is %q", plain)
	}
	e.Load(e.Global("renew_interval 1s") + e.Site(name+", *."+name, e.Block(a.block())))
	e.WaitTrusted("x."+name, harness.Soon)
	e.Eventually(time.Minute, "the plain value to be removed", func() error {
		if got := a.ours(name); !slices.Equal(got, []string{plain[0] + "; policy=wildcard"}) {
			return fmt.Errorf("there is %q", got)
		}
		return nil
	})
	if got := a.at(vname(name)); got[0] != foreign {
		t.Errorf("there are %q", got)
	}
	// narrowing it again changes nothing
	writes := a.count("append", vname(name)) + a.count("delete", vname(name))
	e.Load(e.Global("renew_interval 1s") + e.Site(name, e.Block(a.block())))
	renewed(e, name, e.WaitTrusted(name, harness.Soon))
	if n := a.count("append", vname(name)) + a.count("delete", vname(name)); n != writes {
		t.Errorf("%d writes, there were %d", n, writes)
	}
}

// A change of the dialect is followed: the new value first, its use, then the old one goes.
func TestDialectIsFollowed(t *testing.T) {
	e, a := newEnv(t, options(12*time.Second))
	name := e.Name("dialect")
	a.set(vname(name), foreign)
	e.Load(e.Global("renew_interval 1s") + e.Site(name, e.Block(a.block())))
	e.WaitTrusted(name, harness.Soon)
	account := e.CA.Orders()[0].Account
	e.CA.SetDialect(lab.Dialect{Draft: "02", AcceptAccountURL: true})
	e.Eventually(time.Minute, "the hashed value alone", func() error {
		got := a.ours(name)
		if len(got) != 1 || !strings.Contains(got[0], e.CA.HashedURI(account, name)) {
			return fmt.Errorf("there is %q", got)
		}
		return nil
	})
	if got := a.at(vname(name)); got[0] != foreign {
		t.Errorf("there are %q", got)
	}
	if n := len(e.CA.FailedValidations()); n != 0 {
		t.Errorf("%d failed validations", n)
	}
}

// A record with an end is followed by its successor well before, and then removed.
func TestExpiryIsRenewed(t *testing.T) {
	e, a := newEnv(t, options(12*time.Second))
	name := e.Name("ends")
	// a record is not asked with in its last minute
	e.Load(e.Global("renew_interval 1s") + e.Site(name, e.Block(a.block(), "persist_for 90s")))
	e.WaitTrusted(name, harness.Soon)
	first := a.ours(name)
	if len(first) != 1 || !strings.Contains(first[0], "persistUntil=") {
		t.Fatalf("there is %q", first)
	}
	e.Eventually(2*time.Minute, "the successor alone", func() error {
		got := a.ours(name)
		if len(got) != 1 || got[0] == first[0] {
			return fmt.Errorf("there is %q", got)
		}
		return nil
	})
	if n := len(e.CA.FailedValidations()); n != 0 {
		t.Errorf("%d failed validations", n)
	}
}

// A certificate that has run out while its record vanished gets the record first: the CA is
// not asked in vain.
func TestOverdueIsPublishedFirst(t *testing.T) {
	e, a := newEnv(t, options(5*time.Second))
	name := e.Name("late")
	e.Load(e.Global() + e.Site(name, e.Block(a.block())))
	cert := e.WaitTrusted(name, harness.Soon)
	e.Stop()
	a.set(vname(name), foreign)
	e.Eventually(harness.Soon, "the certificate to run out", func() error {
		if left := time.Until(cert.NotAfter); left > 0 {
			return fmt.Errorf("%s are left", left)
		}
		return nil
	})
	e.Load(e.Global("renew_interval 1s") + e.Site(name, e.Block(a.block())))
	renewed(e, name, cert)
	if n := len(e.CA.FailedValidations()); n != 0 {
		t.Errorf("the CA was asked %d times in vain", n)
	}
	if n := a.count("append", vname(name)); n != 2 {
		t.Errorf("%d writes, want 2", n)
	}
}
