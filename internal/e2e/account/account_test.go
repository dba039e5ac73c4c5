// Package account tests what must never change: the account that every record names.
package account

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mholt/acmez/v3/acme"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/internal/e2e/harness"
	"github.com/dnspersist/caddy-dnspersist/internal/lab"
)

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
