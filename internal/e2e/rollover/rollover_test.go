package rollover

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/internal/e2e/harness"
	"github.com/dnspersist/caddy-dnspersist/internal/lab"
)

// The key changes, the account does not, and the old key is gone.
func TestRollKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "01")
	account := w.bind()
	old, oldThumbprint := w.text("key"), w.text("thumbprint")
	r := w.roll(w.issuer())
	if r.URL != account || r.OldThumbprint != oldThumbprint || r.NewThumbprint != w.text("thumbprint") || r.NewThumbprint == oldThumbprint || r.Resumed {
		t.Errorf("rolled %+v", r)
	}
	w.assertGood(account)
	w.assertGone(old)
	again := w.roll(w.issuer())
	state := w.status()
	if e := state.EarlierThumbprints; len(e) != 2 || e[0] != again.OldThumbprint || e[1] != oldThumbprint {
		t.Errorf("the earlier thumbprints are %v, want %v", e, []string{again.OldThumbprint, oldThumbprint})
	}
	if n := w.ca.Count("new-order"); n != 0 {
		t.Errorf("%d orders were made", n)
	}
	raw, err := json.Marshal(state)
	if err != nil || bytes.Contains(raw, []byte("PRIVATE")) || bytes.Contains(raw, []byte(`"key"`)) {
		t.Errorf("the state is %s, %v", raw, err)
	}
}

func TestRollKeyRefuses(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "01")
	_, err := w.issuer().RollKey(t.Context())
	refused(t, err, "no ACME account", w.ca.Directory(), "a start of Caddy")
	if w.ca.Count("new-account") != 0 || members(t, w.file()) != nil {
		t.Error("an account was bound")
	}
	w.bind()
	before, err := os.ReadFile(w.file())
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.issuer(func(c *acmepersist.Config) { c.AccountKeyPEM = w.text("key") }).RollKey(t.Context())
	refused(t, err, "account_key", "account_url")

	// what the CA refuses for sure leaves nothing behind
	w.ca.Inject(lab.Fault{Step: "key-change", Status: http.StatusForbidden, Type: acme.ProblemTypeNamespace + "unauthorized", Detail: "not today"})
	_, err = w.issuer().RollKey(t.Context())
	refused(t, err, "not today", "old one stays in use")
	if after, _ := os.ReadFile(w.file()); !bytes.Equal(before, after) {
		t.Error("the binding has changed")
	}
	w.ca.MutateDirectory(func(d map[string]any) { delete(d, "keyChange") })
	_, err = w.issuer().RollKey(t.Context())
	refused(t, err, "keyChange")
}

// The reply to the key change is lost: the CA is asked which key it knows.
func TestReplyToKeyChangeIsLost(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "01")
	account := w.bind()
	w.ca.Inject(lab.Fault{Step: "key-change", CutAfter: true})
	w.roll(w.issuer())
	w.assertGood(account)
	w.ca.Inject(lab.Fault{Step: "key-change", CutBefore: true})
	w.roll(w.issuer())
	w.assertGood(account)
}

// An account that was pinned by its key has a file of its own; with account_url instead it
// can be rolled, in all files.
func TestRollKeyThatWasPinned(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "01")
	account := w.bind()
	old := w.text("key")
	pinned := func(c *acmepersist.Config) { c.AccountKeyPEM = old }
	if a, err := w.issuer(pinned).Account(t.Context()); err != nil || a.URL != account {
		t.Fatal(a, err)
	}
	for _, keep := range []bool{true, false} {
		if !keep {
			if err := os.Remove(w.file()); err != nil {
				t.Fatal(err)
			}
		}
		byURL := w.issuer(func(c *acmepersist.Config) { c.AccountURL = account })
		w.roll(byURL)
		w.assertGone(old)
		if a, err := w.issuer(func(c *acmepersist.Config) { c.AccountURL = account }).Account(t.Context()); err != nil || a.URL != account {
			t.Fatal(a, err)
		}
		w.assertGood(account)
	}
	if n, _ := filepath.Glob(filepath.Join(w.folder(), "account*.json")); len(n) != 2 {
		t.Errorf("bindings: %v", n)
	}
}

// CertMagic's copy of an adopted account has the dead key after a rollover and is never
// used again.
func TestAdoptedAccount(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "01")
	account := w.bind()
	m := members(t, w.file())
	users := filepath.Join(w.dir, "acme", filepath.Base(w.folder()), "users", "default")
	if err := os.MkdirAll(users, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"default.key": m["key"].(string), "default.json": `{"status":"valid","location":"` + account + `"}`} {
		if err := os.WriteFile(filepath.Join(users, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(w.file()); err != nil {
		t.Fatal(err)
	}
	if got := w.bind(); got != account || w.text("origin") != "adopted from acme" {
		t.Fatalf("bound %s, %s", got, w.text("origin"))
	}
	w.roll(w.issuer())
	w.assertGood(account)
	byURL := func(c *acmepersist.Config) { c.AccountURL = account }
	if err := os.Rename(w.file(), filepath.Join(w.folder(), "account_other.json")); err != nil {
		t.Fatal(err)
	}
	for _, c := range []func(*acmepersist.Config){byURL, func(*acmepersist.Config) {}} {
		a, err := w.issuer(c).Account(t.Context())
		if err != nil || a.Thumbprint != w.ca.Thumbprint(account) {
			t.Errorf("bound %+v, %v", a, err)
		}
		if err := os.Remove(w.file()); err != nil {
			t.Fatal(err)
		}
	}
}

// A certificate is renewed after another process has rolled the key over. In -01 nothing
// changes in DNS; in -02 the CA takes the value that it has validated before.
func TestRenewalAfterRollover(t *testing.T) {
	t.Parallel()
	for _, dialect := range []string{"01", "02", "02+01"} {
		t.Run(dialect, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, dialect)
			account := w.bind()
			running := w.issuer(func(c *acmepersist.Config) { c.ReloadAccount = time.Millisecond })
			s := w.site(running, "renewed")
			old := s.value(account, dialect != "01")
			s.publish(old)
			s.obtain(t.Context())
			w.roll(w.issuer())
			s.renew(t.Context())
			fresh := s.value(account, dialect != "01")
			if (fresh == old) != (dialect == "01") {
				t.Errorf("the value was %q, is %q", old, fresh)
			}
			w.roll(w.issuer())
			s.renew(t.Context())
			s.publish(s.value(account, dialect != "01"))
			s.renew(t.Context())
			w.assertGood(account)
			if failed := w.ca.FailedValidations(); len(failed) != 0 {
				t.Errorf("failed validations: %v", failed)
			}
		})
	}
}

// A process that has not looked in storage since signs with the dead key once, and goes on
// with the new one. The account is not taken for lost.
func TestRunningProcessNoticesRefusedKey(t *testing.T) {
	t.Parallel()
	for _, interval := range []time.Duration{time.Hour, time.Millisecond} {
		w := newWorld(t, "01")
		account := w.bind()
		running := w.issuer(func(c *acmepersist.Config) {
			c.OnAccountLost, c.ReloadAccount = acmepersist.OnAccountLostReplace, interval
		})
		s := w.site(running, "running")
		s.publish(s.value(account, false))
		s.obtain(t.Context())
		w.roll(w.issuer())
		s.renew(t.Context())

		// also after a kill that leaves the rollover pending
		w.cutShort(true)
		s.renew(t.Context())
		w.assertGood(account)
	}
}

// The CA's other ways to refuse a former key.
func TestRefusalsOfFormerKeys(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"unauthorized", "malformed", "accountDoesNotExist"} {
		w := newWorld(t, "01")
		account := w.bind()
		running := w.issuer(func(c *acmepersist.Config) {
			c.OnAccountLost, c.ReloadAccount = acmepersist.OnAccountLostReplace, time.Hour
		})
		s := w.site(running, "kinds")
		s.publish(s.value(account, false))
		s.obtain(t.Context())
		w.roll(w.issuer())
		w.ca.Inject(lab.Fault{Step: "new-order", Status: http.StatusForbidden, Type: acme.ProblemTypeNamespace + kind, Detail: "no"})
		s.renew(t.Context())
		w.assertGood(account)
	}
}

// A node that has the old binding in memory must not lose the account when its file goes.
func TestBindingVanishes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "01")
	account := w.bind()
	core, logs := observer.New(zapcore.ErrorLevel)
	iss := w.issuer(func(c *acmepersist.Config) { c.ReloadAccount, c.Logger = time.Millisecond, zap.New(core) })
	if _, err := iss.Account(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := (&certmagic.FileStorage{Path: w.dir}).Delete(t.Context(), "dns_persist"); err != nil {
		t.Fatal(err)
	}
	// only a look at storage shows that the file is gone: until then the memory proves nothing
	err := harness.Eventually(harness.Soon, func() error {
		if a, err := iss.Account(t.Context()); err != nil || a.URL != account {
			t.Errorf("bound %+v, %v", a, err)
		}
		if logs.FilterMessageSnippet("no longer in storage").Len() == 0 {
			return errors.New("storage was not looked at")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if a, err := iss.Account(t.Context()); err != nil || a.URL != account {
		t.Errorf("bound %+v, %v", a, err)
	}
	if n := len(w.ca.Accounts()); n != 1 {
		t.Errorf("%d accounts", n)
	}
}
