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

// Sites of one account have providers of their own, or none: each record is kept by its
// site's, and by no other.
func TestKeptByItsOwnProvider(t *testing.T) {
	b := newAPI(t)
	e, a := newEnv(t, options(0))
	b.dns = e.DNS
	one, two, none := e.Name("one"), e.Name("two"), e.Name("none")
	e.Publish(none, e.Value(e.Bind(), false))
	e.Load(e.Global() + e.Site(one, e.Block(a.block())) + e.Site(none, e.Block()) + e.Site(two, e.Block(b.block())))
	for _, n := range []string{one, two, none} {
		e.WaitTrusted(n, harness.Soon)
	}
	a.set(vname(one))
	b.set(vname(two))
	e.DNS.SetTXT(0, vname(none))
	for n, by := range map[string]*api{one: a, two: b} {
		e.Eventually(harness.Soon, "the record of "+n+" to be written again", func() error {
			return harness.Want(by.count("append", vname(n)), 2)
		})
	}
	e.Eventually(harness.Soon, "the record of "+none+" to be missed", func() error {
		for _, l := range e.Logs("a record that a certificate is renewed by is gone or was changed; publish it again") {
			if l["name"] == vname(none) {
				return nil
			}
		}
		return fmt.Errorf("no entry")
	})
	for n, other := range map[string]*api{one: b, two: a, none: a} {
		if c := other.count("append", vname(n)); c != 0 {
			t.Errorf("%s was written %d times by the provider of another site", n, c)
		}
	}
	if c := b.count("append", vname(none)); c != 0 {
		t.Errorf("%s was written %d times, and has no provider", none, c)
	}
}

// Many records are kept at once: that one takes long holds up no other.
func TestManyAreKeptAtOnce(t *testing.T) {
	e, a := newEnv(t, options(0))
	a.lag = 3 * time.Second
	var names []string
	for i := range 12 {
		names = append(names, e.Name(fmt.Sprintf("many%d", i)))
	}
	e.Load(e.Global() + e.Site(strings.Join(names, ", "), e.Block(a.block())))
	for _, n := range names {
		e.WaitTrusted(n, harness.Soon)
	}
	for _, n := range names {
		a.set(vname(n))
	}
	began := time.Now()
	for _, n := range names {
		e.Eventually(harness.Soon, "the record of "+n+" to be written again", func() error {
			return harness.Want(a.count("append", vname(n)), 2)
		})
	}
	// eight are written at a time: after one another it would take 36 s
	t.Logf("all were written within %s", time.Since(began))
}
