package lab_test

import (
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"github.com/dnspersist/caddy-dnspersist/internal/lab"
)

func TestIssuance(t *testing.T) {
	w := newWorld(t, lab.CAConfig{Lifetime: 90 * time.Second, Profiles: map[string]time.Duration{"long": 1000 * time.Hour}})
	var mu sync.Mutex
	var kinds []string
	w.ca.OnEvent(func(e lab.Event) {
		mu.Lock()
		defer mu.Unlock()
		kinds = append(kinds, e.Kind)
	})
	w.record("www."+zone, "")
	for range 3 { // an order that names no profile gets the default one, always
		cert := w.mustObtain("www." + zone)
		if d := cert.NotAfter.Sub(cert.NotBefore).Round(5 * time.Second); d != 90*time.Second {
			t.Errorf("lifetime %s", d)
		}
	}
	if n := w.ca.Certificates(); n != 3 {
		t.Errorf("%d certificates", n)
	}
	orders := w.ca.Orders()
	if len(orders) != 3 || orders[0].Account != w.account.Location || !slices.Equal(orders[0].Identifiers, []string{"www." + zone}) {
		t.Errorf("orders %+v", orders)
	}
	if chals := w.ca.Challenges(); len(chals) != 3 || chals[0].Identifier != "www."+zone || chals[0].Account != w.account.Location {
		t.Errorf("challenges %+v", chals)
	}
	if f := w.ca.FailedValidations(); len(f) != 0 {
		t.Errorf("failures %+v", f)
	}
	if a := w.ca.Accounts(); !slices.Equal(a, []string{w.account.Location}) {
		t.Errorf("accounts %v", a)
	}
	for step, n := range map[string]int{"new-account": 1, "new-order": 3, "finalize": 3, "certificate": 3, "directory": 1} {
		if got := w.ca.Count(step); got != n {
			t.Errorf("%d requests of %s, want %d", got, step, n)
		}
	}
	for _, r := range w.ca.Requests("finalize", "authz") {
		if r.Status != 200 || !slices.Equal(r.Identifiers, []string{"www." + zone}) || r.Account != w.account.Location {
			t.Errorf("request %+v", r)
		}
	}
	if w.ca.PollGap("authz") <= 0 {
		t.Error("no gap between polls")
	}
	for _, kind := range []string{"order", "challenge", "valid", "certificate"} {
		eventually(t, "event "+kind, func() bool {
			mu.Lock()
			defer mu.Unlock()
			return slices.Contains(kinds, kind)
		})
	}
}

func TestAuthorizationsAreNotReused(t *testing.T) {
	w := newWorld(t, lab.CAConfig{})
	w.record(zone, "")
	w.mustObtain(zone)
	for range 300 { // Pebble alone reuses one of a hundred
		order, err := w.order(zone)
		if err != nil {
			t.Fatal(err)
		}
		if order.Status != "pending" {
			t.Fatalf("order is %s", order.Status)
		}
	}
	first := w.ca.Requests("authz")[0].Path
	authz, err := w.client.GetAuthorization(t.Context(), w.account, strings.TrimSuffix(w.ca.Directory(), "/dir")+first)
	if err != nil || authz.Identifier.Type != "dns" || authz.Status != "valid" {
		t.Errorf("authorization %+v, %v", authz, err)
	}
}

func TestMissingRecord(t *testing.T) {
	w := newWorld(t, lab.CAConfig{})
	for range 2 {
		if _, err := w.obtain(zone); err == nil {
			t.Fatal("issued without a record")
		}
	}
	failures := w.ca.FailedValidations()
	if len(failures) != 2 || failures[0].Identifier != zone || failures[0].Type != "dns-persist-01" || failures[0].Detail == "" || failures[0].Time.IsZero() {
		t.Errorf("failures %+v", failures)
	}
	// Nobody polls this one.
	order, err := w.order("a."+zone, "b."+zone)
	if err != nil {
		t.Fatal(err)
	}
	w.start(order)
	eventually(t, "failures without polls", func() bool { return len(w.ca.FailedValidations()) == 4 })
	if w.ca.Certificates() != 0 {
		t.Error("a certificate was issued")
	}
}

func TestWildcard(t *testing.T) {
	w := newWorld(t, lab.CAConfig{})
	w.record(zone, "")
	if _, err := w.obtain("*." + zone); err == nil {
		t.Fatal("issued without a policy")
	}
	if f := w.ca.FailedValidations(); len(f) != 1 || f[0].Identifier != "*."+zone {
		t.Errorf("failures %+v", f)
	}
	w.record(zone, "; policy=wildcard")
	w.mustObtain("*."+zone, zone)
	if c := w.ca.Challenges(); len(c) != 3 || c[0].Identifier != "*."+zone {
		t.Errorf("challenges %+v", c)
	}
}

func TestOfferAndMutations(t *testing.T) {
	w := newWorld(t, lab.CAConfig{})
	order, err := w.order(zone)
	if err != nil {
		t.Fatal(err)
	}
	get := func() acme.Authorization {
		t.Helper()
		authz, err := w.client.GetAuthorization(t.Context(), w.account, order.Authorizations[0])
		if err != nil {
			t.Fatal(err)
		}
		return authz
	}
	w.ca.SetOffer(false)
	if authz := get(); len(authz.Challenges) == 0 {
		t.Error("no challenges at all")
	} else if _, ok := offer(authz); ok {
		t.Error("offered")
	}
	w.ca.SetOffer(true)
	if _, ok := offer(get()); !ok {
		t.Error("not offered")
	}
	w.ca.MutateAuthz(func(m map[string]any) { m["status"] = "odd" })
	if s := get().Status; s != "odd" {
		t.Errorf("status %s", s)
	}
	w.ca.MutateAuthz(nil)
	if s := get().Status; s != "pending" {
		t.Errorf("status %s", s)
	}
	w.ca.MutateDirectory(func(m map[string]any) { delete(m, "renewalInfo") })
	defer w.ca.MutateDirectory(nil)
	response, err := w.ca.HTTPClient().Get(w.ca.Directory())
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || strings.Contains(string(body), "renewalInfo") || !strings.Contains(string(body), "newOrder") {
		t.Errorf("directory %s, %v", body, err)
	}
}

func TestForget(t *testing.T) {
	w := newWorld(t, lab.CAConfig{})
	w.record(zone, "")
	old := w.mustObtain(zone)
	w.ca.Forget()
	if _, err := w.order(zone); problemType(err) != "accountDoesNotExist" {
		t.Fatalf("order with a forgotten account: %v", err)
	}
	w.register()
	w.record(zone, "")
	w.mustObtain(zone)
	if w.ca.Certificates() != 2 || len(w.ca.Accounts()) != 2 {
		t.Errorf("%d certificates, accounts %v", w.ca.Certificates(), w.ca.Accounts())
	}
	if old == nil {
		t.Fatal("no certificate")
	}
}

func TestReplaces(t *testing.T) {
	w := newWorld(t, lab.CAConfig{})
	w.record(zone, "")
	cert := w.mustObtain(zone)
	id, err := acme.ARIUniqueIdentifier(cert)
	if err != nil {
		t.Fatal(err)
	}
	w.replaces = id
	w.mustObtain(zone)
	if orders := w.ca.Orders(); orders[1].Replaces != id || w.ca.Requests("finalize")[1].Replaces != id {
		t.Errorf("orders %+v", orders)
	}
	if _, err := w.order(zone); problemType(err) != "alreadyReplaced" {
		t.Errorf("replaced again: %v", err)
	}
}
