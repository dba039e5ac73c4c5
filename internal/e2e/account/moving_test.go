package account

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/internal/e2e/harness"
)

// A site moves from acme: its certificate stays and its account is adopted. After that
// nothing changes the account.
func TestMovingFromAcme(t *testing.T) {
	e := harness.New(t, harness.Options{})
	account := asAcme(e, "")
	old := e.Name("old")
	value := e.Value(account, false)
	e.Publish(old, value)
	obtainAsAcme(e, old)
	orders := len(e.CA.Orders())

	names := []string{old}
	config := func(global string, more ...string) string {
		return e.Global(global) + e.Site(strings.Join(names, ", "), e.Block(more...))
	}
	e.Load(config(""))
	stored := e.WaitTrusted(old, harness.Soon)
	if n := len(e.CA.Orders()); n != orders {
		t.Fatalf("moving the site made %d orders, want none", n-orders)
	}
	// use adds a name, so that the account is really used, and checks which one was
	use := func(step string, load func()) {
		t.Helper()
		name := e.Name(fmt.Sprintf("n%d", len(names)))
		e.Publish(name, value)
		names = append(names, name)
		load()
		e.WaitTrusted(name, harness.Soon)
		all := e.CA.Orders()
		if got := all[len(all)-1].Account; got != account {
			t.Errorf("%s: the order was made with account %s, want %s", step, got, account)
		}
		if got, _ := bound(t, e); got != account {
			t.Errorf("%s: the bound account is %s, want %s", step, got, account)
		}
	}
	use("adopted", func() { e.Load(config("")) })
	use("an email is added", func() { e.Load(config("", "email ops@example.com")) })

	other := e.NewCA(harness.Options{})
	use("another CA's email in the process", func() {
		second := e.Name("other")
		e.Publish(second, e.ValueFor(other, e.BindFor(other), false))
		e.Load(config("email all@example.org") + e.Site(second, e.BlockFor(other, "email other@example.net")))
	})
	asAcme(e, "zoe@example.com")
	asAcme(e, "amy@example.com")
	for i, folder := range []string{"default", "zoe@example.com", "amy@example.com"} {
		at := time.Now().Add(time.Duration(i) * time.Hour)
		if err := os.Chtimes(filepath.Join(users(e), folder), at, at); err != nil {
			t.Fatal(err)
		}
	}
	use("the folders of acme's accounts shuffled", func() { e.Load(config("")) })

	// acme as the fallback meets a CA that has forgotten the account, and deletes its copy
	_, before := bound(t, e)
	e.CA.Forget()
	name := e.Name("forgotten")
	e.Publish(name, value)
	e.Load(e.Global() + e.Site(old, e.Block()) + fmt.Sprintf("%s {\n\ttls {\n\t\tissuer dns_persist %s\n\t\tissuer acme {\n\t\t\tdir %s\n\t\t\ttrusted_roots %q\n\t\t}\n\t}\n}\n",
		name, e.Block(), e.CA.Directory(), filepath.ToSlash(e.CA.RootsFile())))
	logged(e, "could not get certificate from issuer", "cannot be used", account)
	e.Eventually(harness.Soon, "acme to ask the CA as well", func() error { return harness.AtLeast(len(e.CA.Requests("new-account")), 1) })
	if _, after := bound(t, e); !bytes.Equal(before, after) {
		t.Error("the bound account's file has changed")
	}
	if again, err := e.Trusted(old); err != nil || again.SerialNumber.Cmp(stored.SerialNumber) != 0 {
		t.Errorf("the certificate from before the move is gone: %v", err)
	}
	assertNoKey(e)
}

// obtainAsAcme puts a certificate of acme's account in storage, where acme files its own.
func obtainAsAcme(e *harness.Env, name string) {
	e.T.Helper()
	iss := acmepersist.New(acmepersist.Config{
		CA: e.CA.Directory(), Storage: e.FileStorage(), Transport: e.CA.HTTPClient().Transport,
		Checker: propagation.NewChecker(propagation.Config{Resolvers: []string{e.DNS.Resolver()}, Exchanger: e.DNS.Exchanger()}),
	})
	var magic *certmagic.Config
	cache := certmagic.NewCache(certmagic.CacheOptions{GetConfigForCert: func(certmagic.Certificate) (*certmagic.Config, error) { return magic, nil }})
	defer cache.Stop()
	magic = certmagic.New(cache, certmagic.Config{Storage: e.FileStorage(), Issuers: []certmagic.Issuer{iss}})
	if err := magic.ObtainCertSync(context.Background(), name); err != nil {
		e.T.Fatal(err)
	}
	// what a site with acme alone would not have
	if err := os.RemoveAll(filepath.Join(e.Storage, "dns_persist")); err != nil {
		e.T.Fatal(err)
	}
}

func TestSeveralAccountsAndNoEmail(t *testing.T) {
	e := harness.New(t, harness.Options{})
	a, b := asAcme(e, "amy@example.com"), asAcme(e, "zoe@example.com")
	name := e.Name("several")
	e.Load(e.Global() + e.Site(name, e.Block()))
	logged(e, "could not get certificate from issuer", "several accounts", a, b, "account_url")
	if n := len(e.CA.Accounts()); n != 2 {
		t.Errorf("the CA has %d accounts, want the 2 of acme", n)
	}
	// the email chooses
	e.Publish(name, e.Value(b, false))
	e.Load(e.Global() + e.Site(name, e.Block("email zoe@example.com")))
	e.WaitTrusted(name, harness.Soon)
	if got, _ := bound(t, e); got != b {
		t.Errorf("the bound account is %s, want %s", got, b)
	}
}
