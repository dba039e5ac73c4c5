package lab_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"github.com/dnspersist/caddy-dnspersist/internal/lab"
)

// look asks for the account itself.
func (w *world) look() (string, error) {
	answer, err := w.client.GetAuthorization(w.t.Context(), w.account, w.account.Location)
	return answer.Status, err
}

func TestAccountCache(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lab.CAConfig{})
	next := newKey(t)
	w.ca.SetPublic(lab.Public{AccountCache: 300 * time.Millisecond})
	if _, err := w.client.AccountKeyRollover(t.Context(), w.account, next); err != nil {
		t.Fatal(err)
	}
	w.account.PrivateKey = next
	if _, err := w.look(); problemType(err) != "malformed" {
		t.Errorf("the new key is refused with %v, want malformed", err)
	}
	if _, err := w.client.GetAccount(t.Context(), acme.Account{PrivateKey: w.account.PrivateKey}); err != nil {
		t.Errorf("new-account does not know the new key: %v", err)
	}
	eventually(t, "the new key is accepted", func() bool { _, err := w.look(); return err == nil })

	ended := w.account
	ended.Status = acme.StatusDeactivated
	if got, err := w.client.UpdateAccount(t.Context(), ended); err != nil || got.Status != acme.StatusDeactivated {
		t.Fatal(got.Status, err)
	}
	if status, err := w.look(); status != acme.StatusValid || err != nil {
		t.Errorf("the deactivated account is %q, %v; want valid for now", status, err)
	}
	eventually(t, "the account is refused", func() bool { _, err := w.look(); return problemType(err) == "unauthorized" })
}

func TestFailedValidationsAreLimited(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lab.CAConfig{})
	w.ca.SetPublic(lab.Public{FailedValidations: 2})
	for range 2 {
		if _, err := w.obtain("www." + zone); err == nil {
			t.Fatal("a certificate without a record")
		}
	}
	eventually(t, "an order is refused", func() bool { _, err := w.order("*.www." + zone); return problemType(err) == "rateLimited" })
	if _, err := w.order("other." + zone); err != nil {
		t.Errorf("another name: %v", err)
	}
}

func TestReplacedOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lab.CAConfig{})
	w.ca.SetPublic(lab.Public{ReplacedOnce: true})
	w.record(zone, "")
	leaf := w.mustObtain(zone)
	id, err := acme.ARIUniqueIdentifier(leaf)
	if err != nil {
		t.Fatal(err)
	}
	w.replaces = id
	if _, err := w.order(zone); err != nil {
		t.Fatal(err)
	}
	_, err = w.order(zone)
	var problem acme.Problem
	if !errors.As(err, &problem) || problemType(err) != "alreadyReplaced" || problem.Status != http.StatusConflict {
		t.Errorf("the second one: %v, want 409 alreadyReplaced", err)
	}
}

func TestFinalizeThatInvalidates(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lab.CAConfig{})
	w.record(zone, "")
	w.ca.Inject(lab.Fault{Step: "finalize", Status: 500, RetryAfter: "60", Invalidates: true, Times: 3})
	if _, err := w.obtain(zone); err == nil {
		t.Fatal("there is a certificate")
	}
	order, err := w.client.GetOrder(t.Context(), w.account, acme.Order{Location: w.ca.Orders()[0].URL})
	if err != nil || order.Status != acme.StatusInvalid {
		t.Errorf("the order is %q, %v; want invalid", order.Status, err)
	}
}

func TestValidationsThatMustFail(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lab.CAConfig{})
	w.record(zone, "")
	for _, p := range []lab.Problem{lab.ErrSecondary, lab.ErrInternal} {
		w.ca.FailValidations(&p)
		_, err := w.obtain(zone)
		if problemType(err) != p.Type || !strings.Contains(err.Error(), p.Detail) {
			t.Errorf("error %v, want %s", err, p)
		}
	}
	w.ca.FailValidations(nil)
	w.mustObtain(zone)
}

func TestLimits(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lab.CAConfig{})
	w.ca.Inject(lab.TooMany(zone, time.Hour))
	_, err := w.order("www." + zone)
	if problemType(err) != "rateLimited" || !strings.Contains(err.Error(), `for "`+zone+`"`) {
		t.Errorf("error %v", err)
	}
	w.ca.ClearFaults()
	w.ca.Inject(lab.Paused("www." + zone))
	if _, err := w.order("www." + zone); problemType(err) != "rateLimited" || !strings.Contains(err.Error(), "unpause") {
		t.Errorf("error %v", err)
	}
	if _, err := w.order(zone); err != nil {
		t.Errorf("a name that is not paused: %v", err)
	}
}

func TestCAAAsBoulder(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lab.CAConfig{})
	w.ca.SetPublic(lab.Public{CAA: true})
	w.record("www."+zone, "; policy=wildcard")
	own := "; accounturi=" + w.account.Location
	for _, tc := range []struct {
		caa, name string
		issued    bool
	}{
		{`0 issue "pebble.letsencrypt.org"`, "www." + zone, true},
		{`0 issue "pebble.letsencrypt.org;"`, "www." + zone, true},
		{`0 issue "pebble.letsencrypt.org` + own + `; validationmethods=dns-01,dns-persist-01"`, "www." + zone, true},
		{`0 issue "pebble.letsencrypt.org; ACCOUNTURI=x"`, "www." + zone, true},
		{`0 issue "other.test"`, "www." + zone, false},
		{`0 issue "PEBBLE.letsencrypt.org"`, "www." + zone, false},
		{`0 issue "pebble.letsencrypt.org."`, "www." + zone, false},
		{`0 issue "pebble.letsencrypt.org` + own + `;"`, "www." + zone, false},
		{`0 issue "pebble.letsencrypt.org` + own + own + `"`, "www." + zone, false},
		{`0 issue "pebble.letsencrypt.org; accounturi=https://other.test/1"`, "www." + zone, false},
		{`0 issue "pebble.letsencrypt.org; validationmethods=dns-01, dns-persist-01"`, "www." + zone, false},
		{`1 tbs "x"`, "www." + zone, false},
		{`0 issuewild ";"`, "www." + zone, true},
		{`0 issuewild ";"`, "*.www." + zone, false},
	} {
		w.dns.ClearName(0, zone)
		w.dns.SetRR(0, zone+". 60 IN CAA "+tc.caa)
		if _, err := w.obtain(tc.name); (err == nil) != tc.issued || err != nil && problemType(err) != "caa" {
			t.Errorf("%s with %s: %v, want issued %v", tc.name, tc.caa, err, tc.issued)
		}
	}
}
