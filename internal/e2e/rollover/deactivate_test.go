package rollover

import (
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/internal/lab"
)

func replace(c *acmepersist.Config) {
	c.OnAccountLost, c.ReloadAccount = acmepersist.OnAccountLostReplace, time.Hour
}

// assertEnded checks that an error is about a deactivated account.
func assertEnded(t *testing.T, err error, account string) {
	t.Helper()
	var lost *acmepersist.AccountError
	if !errors.As(err, &lost) || lost.URL != account || lost.DeactivatedAt.IsZero() {
		t.Fatalf("got %v, want an AccountError of a deactivated account", err)
	}
	refused(t, err, "deactivat", "no account is registered in its place", lost.DeactivatedAt.Format("2006-01-02"), "remove dns_persist/")
}

// A deactivated account is used no more, and nothing takes its place: neither here nor in a
// process that still has it in memory, even where lost accounts are to be replaced.
func TestDeactivate(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "01")
	refused(t, w.issuer().DeactivateAccount(t.Context(), "https://x.test/1"), "no ACME account")
	account := w.bind()
	running := w.issuer(replace)
	s := w.site(running, "ended")
	s.publish(s.value(account, false))
	s.obtain(t.Context())

	refused(t, w.issuer().DeactivateAccount(t.Context(), account+"/"), account+", nothing", account+"/:")
	w.assertGood(account)
	if err := w.issuer().DeactivateAccount(t.Context(), account); err != nil {
		t.Fatal(err)
	}
	state := w.status()
	if state.Status != "deactivated" || state.DeactivatedAt.IsZero() || state.Problem == "" {
		t.Errorf("the state is %+v", state)
	}
	_, err := w.issuer().Account(t.Context())
	assertEnded(t, err, account)
	for range 2 {
		assertEnded(t, s.magic.RenewCertSync(t.Context(), s.name, true), account)
	}
	_, err = w.issuer().RollKey(t.Context())
	assertEnded(t, err, account)
	if err := w.issuer().DeactivateAccount(t.Context(), account); err != nil {
		t.Errorf("once more: %v", err)
	}
	_, err = w.elsewhere().importing(w.export())
	refused(t, err, account)
	if all := w.ca.Accounts(); len(all) != 1 {
		t.Errorf("the CA has the accounts %v, want one", all)
	}
}

// What the CA refuses for sure is not noted; what may have been done is, and nothing is
// registered until it is known.
func TestDeactivationCutShort(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "01")
	account := w.bind()
	w.ca.Inject(lab.Fault{Step: "account", Status: http.StatusForbidden, Type: acme.ProblemTypeNamespace + "unauthorized", Detail: "not today"})
	refused(t, w.issuer().DeactivateAccount(t.Context(), account), "not today")
	w.assertGood(account)
	if _, ok := members(t, w.file())["deactivating_at"]; ok {
		t.Errorf("the refused deactivation was noted: %s", w.text("deactivating_at"))
	}

	// the process is killed when the CA has acted
	w.crash(func(iss *acmepersist.Issuer, ctx *crashing) error { return iss.DeactivateAccount(ctx, account) }, func(op string) bool {
		return op == "after /my-account"
	})
	if state := w.status(); state.DeactivatingAt.IsZero() || !state.DeactivatedAt.IsZero() || state.Status != "deactivated" {
		t.Fatalf("the state is %+v", state)
	}
	s := w.site(w.issuer(replace), "cut")
	s.publish(s.value(account, false))
	assertEnded(t, s.magic.ObtainCertSync(t.Context(), s.name), account)
	if err := w.issuer().DeactivateAccount(t.Context(), account); err != nil {
		t.Fatal(err)
	}
	if state := w.status(); state.DeactivatedAt.IsZero() {
		t.Errorf("the state is %+v", state)
	}
	if all := w.ca.Accounts(); len(all) != 1 {
		t.Errorf("the CA has the accounts %v, want one", all)
	}
}

// The key of a rollover that is pending may be the one that the CA knows.
func TestDeactivateWhileRolloverIsPending(t *testing.T) {
	t.Parallel()
	for _, atCA := range []bool{true, false} {
		w := newWorld(t, "01")
		account := w.bind()
		w.cutShort(atCA)
		if err := w.issuer().DeactivateAccount(t.Context(), account); err != nil {
			t.Fatal(err)
		}
		if state := w.status(); state.Status != "deactivated" {
			t.Errorf("the state is %+v", state)
		}
	}
}

// A CA that was reset has lost the account and no one has deactivated it: that is replaced
// as before, also with a rollover pending.
func TestLostAccountIsStillReplaced(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "01")
	account := w.bind()
	w.cutShort(false)
	s := w.site(w.issuer(replace), "reset")
	w.ca.Forget()
	err := s.magic.ObtainCertSync(t.Context(), s.name)
	var waiting *acmepersist.WaitingError
	if !errors.As(err, &waiting) {
		t.Fatalf("got %v, want the record of another account to be asked for", err)
	}
	if got := w.text("url"); got == account {
		t.Error("the account was not replaced")
	}
}
