// Package account tests what must never change: the account that every record names.
package account

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/internal/e2e/harness"
	"github.com/dnspersist/caddy-dnspersist/internal/lab"
)

// register makes an account at the CA, as another program would.
func register(t *testing.T, ca *lab.CA, email string) acme.Account {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	account := acme.Account{TermsOfServiceAgreed: true, PrivateKey: key}
	if email != "" {
		account.Contact = []string{"mailto:" + email}
	}
	client := &acme.Client{Directory: ca.Directory(), HTTPClient: ca.HTTPClient()}
	if account, err = client.NewAccount(context.Background(), account); err != nil {
		t.Fatal(err)
	}
	return account
}

func keyPEM(t *testing.T, account acme.Account) string {
	t.Helper()
	pem, err := certmagic.PEMEncodePrivateKey(account.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem)
}

// asAcme registers an account and files it as CertMagic files those of `acme`.
func asAcme(e *harness.Env, email string) string {
	t := e.T.(*testing.T)
	t.Helper()
	account := register(t, e.CA, email)
	folder, file := email, strings.Split(email, "@")[0]
	if email == "" {
		folder, file = "default", "default"
	}
	dir := filepath.Join(users(e), folder)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	registration, err := json.Marshal(account)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{file + ".json": registration, file + ".key": []byte(keyPEM(t, account))} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return account.Location
}

func users(e *harness.Env) string {
	return filepath.Join(e.Storage, "acme", certmagic.StorageKeys.Safe(acmepersist.IssuerKey(e.CA.Directory())), "users")
}

// binding is the bound account's file.
func binding(e *harness.Env) string {
	return filepath.Join(e.Storage, "dns_persist", certmagic.StorageKeys.Safe(acmepersist.IssuerKey(e.CA.Directory())), "account.json")
}

func bound(t *testing.T, e *harness.Env) (url string, raw []byte) {
	t.Helper()
	raw, err := os.ReadFile(binding(e))
	if err != nil {
		t.Fatal(err)
	}
	var b struct{ URL string }
	if err := json.Unmarshal(raw, &b); err != nil {
		t.Fatal(err)
	}
	return b.URL, raw
}

// logged waits for an entry whose text holds all of the words.
func logged(e *harness.Env, message string, words ...string) {
	e.T.Helper()
	e.Eventually(harness.Soon, fmt.Sprintf("a log entry with %q", words), func() error {
	entries:
		for _, l := range e.Logs(message) {
			text, _ := json.Marshal(l)
			for _, w := range words {
				if !bytes.Contains(text, []byte(w)) {
					continue entries
				}
			}
			return nil
		}
		return fmt.Errorf("none among %d entries with %q", len(e.Logs(message)), message)
	})
}

// assertNoKey checks that no key was logged.
func assertNoKey(e *harness.Env, secrets ...string) {
	e.T.Helper()
	log, err := os.ReadFile(e.LogFile)
	if err != nil {
		e.T.Fatal(err)
	}
	for _, s := range append(secrets, "PRIVATE KEY") {
		if bytes.Contains(log, []byte(s)) {
			e.T.Errorf("the log holds %q", s)
		}
	}
}

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

func TestCAForgetsTheAccount(t *testing.T) {
	e := harness.New(t, harness.Options{})
	account := e.Bind()
	known, name := e.Name("known"), e.Name("forgotten")
	e.Publish(known, e.Value(account, false))
	e.Load(e.Global() + e.Site(known, e.Block()))
	e.WaitTrusted(known, harness.Soon)
	_, before := bound(t, e)
	e.CA.Forget()
	e.Load(e.Global() + e.Site(known+", "+name, e.Block()))
	logged(e, "could not get certificate from issuer", account, "_validation-persist."+known, "does not know it")
	if n := len(e.CA.Accounts()); n != 1 {
		t.Errorf("%d accounts were registered, want the first only", n)
	}
	if _, after := bound(t, e); !bytes.Equal(before, after) {
		t.Error("the bound account's file has changed")
	}
	// private CAs that are reset now and then
	e.Load(e.Global() + e.Site(known+", "+name, e.Block("on_account_lost replace")))
	logged(e, "publish this TXT record once", "_validation-persist."+name)
	fresh, _ := bound(t, e)
	if fresh == account {
		t.Fatal("the account was not replaced")
	}
	e.Publish(name, e.Value(fresh, false))
	e.WaitTrusted(name, harness.Soon)
	assertNoKey(e)
}

func TestDeactivatedAccount(t *testing.T) {
	e := harness.New(t, harness.Options{})
	mine := register(t, e.CA, "")
	keyFile := filepath.Join(t.TempDir(), "account.pem")
	if err := os.WriteFile(keyFile, []byte(keyPEM(t, mine)), 0o600); err != nil {
		t.Fatal(err)
	}
	pinned := fmt.Sprintf("account_key {file.%s}", filepath.ToSlash(keyFile))
	first, second := e.Name("first"), e.Name("second")
	e.Publish(first, e.Value(mine.Location, false))
	e.Load(e.Global() + e.Site(first, e.Block(pinned)))
	e.WaitTrusted(first, harness.Soon)
	if _, err := os.Stat(filepath.Join(users(e), "default")); err == nil {
		t.Error("the pinned key was put into acme's folders")
	}
	client := &acme.Client{Directory: e.CA.Directory(), HTTPClient: e.CA.HTTPClient()}
	mine.Status = acme.StatusDeactivated
	if _, err := client.UpdateAccount(context.Background(), mine); err != nil {
		t.Fatal(err)
	}
	e.Load(e.Global() + e.Site(first+", "+second, e.Block(pinned)))
	logged(e, "could not get certificate from issuer", mine.Location, "deactivated")
	if n := len(e.CA.Accounts()); n != 1 {
		t.Errorf("the CA has %d accounts, want 1", n)
	}
	assertNoKey(e)
}

func TestAccountURL(t *testing.T) {
	t.Run("empty storage", func(t *testing.T) {
		e := harness.New(t, harness.Options{})
		e.Load(e.Global() + e.Site(e.Name("empty"), e.Block("account_url "+strings.Replace(e.CA.Directory(), "/dir", "/my-account/1", 1))))
		logged(e, "could not get certificate from issuer", "account_url", "/my-account/1", "no account is registered")
		if n := len(e.CA.Accounts()); n != 0 {
			t.Errorf("%d accounts were registered, want none", n)
		}
	})
	t.Run("another than the bound one", func(t *testing.T) {
		e := harness.New(t, harness.Options{})
		account := e.Bind()
		e.Load(e.Global() + e.Site(e.Name("other"), e.Block("account_url "+account+"x")))
		logged(e, "could not get certificate from issuer", "account_url", account+"x")
		if n := len(e.CA.Accounts()); n != 1 {
			t.Errorf("the CA has %d accounts, want 1", n)
		}
	})
	t.Run("one of acme", func(t *testing.T) {
		e := harness.New(t, harness.Options{})
		asAcme(e, "amy@example.com")
		zoe := asAcme(e, "zoe@example.com")
		name := e.Name("zoe")
		e.Publish(name, e.Value(zoe, false))
		e.Load(e.Global() + e.Site(name, e.Block("account_url "+zoe)))
		e.WaitTrusted(name, harness.Soon)
	})
}

func TestRegistrationCutShortGoesOn(t *testing.T) {
	e := harness.New(t, harness.Options{})
	e.Bind()
	// the file as it was before the CA had answered
	_, raw := bound(t, e)
	var b map[string]any
	if err := json.Unmarshal(raw, &b); err != nil {
		t.Fatal(err)
	}
	url := b["url"]
	delete(b, "url")
	raw, err := json.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(binding(e), raw, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := e.Bind(); got != url {
		t.Errorf("after the crash the account is %s, want %s", got, url)
	}
	if n := len(e.CA.Accounts()); n != 1 {
		t.Errorf("the CA has %d accounts, want 1", n)
	}
}

func TestExternalAccountBinding(t *testing.T) {
	const mac = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"
	e := harness.New(t, harness.Options{CA: lab.CAConfig{EAB: map[string]string{"kid-1": mac}, RequireEAB: true}})
	name := e.Name("eab")
	e.Load(e.Global() + e.Site(name, e.Block()))
	logged(e, "could not get certificate from issuer", "external account binding", "eab")
	e.Load(e.Global() + e.Site(name, e.Block("eab kid-1 "+mac)))
	logged(e, "publish this TXT record once", name)
	account, _ := bound(t, e)
	e.Publish(name, e.Value(account, false))
	e.WaitTrusted(name, harness.Soon)
	assertNoKey(e, mac)
}

func TestStorageLost(t *testing.T) {
	e := harness.New(t, harness.Options{})
	lost := register(t, e.CA, "")
	name := e.Name("lost")
	e.Publish(name, e.Value(lost.Location, false))
	e.Load(e.Global() + e.Site(name, e.Block()))
	logged(e, "storage lost?", lost.Location, `"level":"error"`)
}

// The key is rolled over by another process while Caddy runs: the record stays, and the
// next certificate is obtained with the new key, also where lost accounts are replaced.
func TestKeyIsRolledOverWhileCaddyRuns(t *testing.T) {
	e := harness.New(t, harness.Options{})
	account := e.Bind()
	first, second := e.Name("first"), e.Name("second")
	config := e.Global() + e.Site(first+", "+second, e.Block("on_account_lost replace"))
	e.Publish(first, e.Value(account, false))
	e.Load(config)
	e.WaitTrusted(first, harness.Soon)
	logged(e, "publish this TXT record once", second)
	iss := acmepersist.New(acmepersist.Config{CA: e.CA.Directory(), Storage: e.FileStorage(), Transport: e.CA.HTTPClient().Transport})
	if _, err := iss.RollKey(t.Context()); err != nil {
		t.Fatal(err)
	}
	e.Publish(second, e.Value(account, false))
	e.WaitTrusted(second, harness.Soon)
	e.AssertClean(2)
	assertNoKey(e)
}
