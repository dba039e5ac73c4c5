package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dnspersist/caddy-dnspersist/internal/e2e/harness"
	"github.com/dnspersist/caddy-dnspersist/internal/tuning"
)

func TestFirstCertificateIsParkedAndHandedBack(t *testing.T) {
	e := harness.New(t, harness.Options{})
	name := e.Name("first")
	value := e.Value(e.Bind(), false)
	e.Load(e.Global() + e.Site(name, e.Block()))
	e.Asked(name)
	e.Publish(name, value)
	e.WaitTrusted(name, 10*time.Second) // CertMagic's own retry comes after 60
	e.AssertClean(1)
}

func TestParkedThroughReloads(t *testing.T) {
	e := harness.New(t, harness.Options{})
	name := e.Name("reload")
	value := e.Value(e.Bind(), false)
	config := e.Global() + e.Site(name, e.Block())
	e.Load(config)
	e.Asked(name)
	for range 5 {
		e.Load(config)
	}
	e.Publish(name, value)
	e.WaitTrusted(name, 10*time.Second)
	e.AssertClean(1)
	if n := len(e.Logs("publish this TXT record once")); n != 1 {
		t.Errorf("the record was asked for %d times through five reloads, want once", n)
	}
}

func TestParkedAfterAFailedReload(t *testing.T) {
	e := harness.New(t, harness.Options{})
	name := e.Name("failed")
	value := e.Value(e.Bind(), false)
	config := e.Global() + e.Site(name, e.Block())
	e.Load(config)
	e.Asked(name)
	// an occupied port makes an app fail after the issuers were started
	occupied := httptest.NewServer(http.NotFoundHandler())
	defer occupied.Close()
	port := occupied.URL[strings.LastIndex(occupied.URL, ":")+1:]
	broken := config + fmt.Sprintf("http://127.0.0.1:%s {\n\trespond \"x\"\n}\n", port)
	if err := e.TryLoad(broken); err == nil {
		t.Skip("this system lets two servers listen on one port")
	}
	e.Publish(name, value)
	e.WaitTrusted(name, 10*time.Second)
	e.AssertClean(1)
}

func TestRenewalWhoseRecordVanished(t *testing.T) {
	e := harness.New(t, harness.Options{Lifetime: 40 * time.Second})
	name := e.Name("vanished")
	value := e.Value(e.Bind(), false)
	e.Publish(name, value)
	e.Load(e.Global("renew_interval 1s") + e.Site(name, e.Block()))
	first := e.WaitTrusted(name, harness.Soon)
	e.Publish(name)
	e.Asked(name)
	e.Publish(name, value)
	e.Eventually(harness.Soon, "the renewed certificate", func() error {
		cert, err := e.Trusted(name)
		if err == nil && cert.SerialNumber.Cmp(first.SerialNumber) == 0 {
			err = fmt.Errorf("still the first one")
		}
		return err
	})
	if failed := e.CA.FailedValidations(); len(failed) != 0 {
		t.Errorf("failed validations: %v", failed)
	}
}

func TestOnDemand(t *testing.T) {
	e := harness.New(t, harness.Options{})
	allowed, denied := e.Name("allowed"), e.Name("denied")
	var refuse atomic.Bool
	permission := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("domain") == denied && refuse.Load() {
			w.WriteHeader(http.StatusForbidden)
		}
	}))
	defer permission.Close()
	value := e.Value(e.Bind(), false)
	e.Load(e.Global("on_demand_tls {\n\t\task "+permission.URL+"\n\t}") +
		"https:// {\n\ttls {\n\t\ton_demand\n\t\tissuer dns_persist " + e.Block() + "\n\t}\n\trespond \"hi\"\n}\n")
	for _, n := range []string{allowed, denied} {
		start := time.Now()
		if _, err := e.Trusted(n); err == nil {
			t.Fatalf("%s got a certificate without a record", n)
		}
		if took := time.Since(start); took > 8*time.Second {
			t.Errorf("the handshake of a waiting name took %s, it must fail at once", took)
		}
		e.Asked(n)
	}
	refuse.Store(true)
	e.Publish(allowed, value)
	e.Publish(denied, value)
	e.Eventually(harness.Soon, "the domain to be tried again", func() error {
		if !e.StoredCertificate(allowed) {
			return fmt.Errorf("no certificate in storage")
		}
		return nil
	})
	e.WaitTrusted(allowed, harness.Soon)
	e.Eventually(harness.Soon, "the refusal", func() error { return harness.AtLeast(len(e.Logs("no longer permitted")), 1) })
	if e.StoredCertificate(denied) {
		t.Error("a name that is no longer permitted got a certificate")
	}
	e.AssertClean(1)
}

func TestStaleServerAndTheClock(t *testing.T) {
	// the CA asks a server that has the record, the other one never gets it
	e := harness.New(t, harness.Options{Lifetime: 40 * time.Second, Tuning: func(v *tuning.Values) { v.PropagationTimeout = time.Second }})
	// Pebble's renewal window may begin at once, while both servers have the record
	e.CA.MutateDirectory(func(d map[string]any) { delete(d, "renewalInfo") })
	e.DNS.SetPick("first")
	name := e.Name("stale")
	value := e.Value(e.Bind(), false)
	e.Publish(name, value)
	e.Load(e.Global("renew_interval 1s") + e.Site(name, e.Block()))
	first := e.WaitTrusted(name, harness.Soon)
	e.PublishOn(2, name)
	validations := e.CA.Count("challenge")
	e.Eventually(harness.Soon, "the renewed certificate", func() error {
		cert, err := e.Trusted(name)
		if err != nil {
			return err
		}
		if cert.SerialNumber.Cmp(first.SerialNumber) == 0 {
			return fmt.Errorf("still the first one")
		}
		return nil
	})
	if time.Now().After(first.NotAfter) {
		t.Error("the certificate had run out before it was renewed")
	}
	// asked only when a quarter of the life was left
	asked := e.CA.Requests("challenge")[validations].Time
	if left := first.NotAfter.Sub(asked); left > 11*time.Second {
		t.Errorf("the CA was asked with %s left, although one server never had the record", left)
	}
	if len(e.Logs("cannot wait for DNS any longer")) == 0 {
		t.Error("asking against the gate's advice was not logged")
	}
}

func TestThousandWaitingNamesHoldNothing(t *testing.T) {
	e := harness.New(t, harness.Options{})
	good := e.Name("good")
	e.Publish(good, e.Value(e.Bind(), false))
	var names []string
	for i := range 1000 {
		names = append(names, e.Name(fmt.Sprintf("w%d", i)))
	}
	names = append(names, good)
	start := time.Now()
	e.Load(e.Global() + e.Site(strings.Join(names, ", "), e.Block()))
	e.WaitTrusted(good, 60*time.Second)
	t.Logf("certificate beside 1000 waiting names after %s", time.Since(start).Round(10*time.Millisecond))
	// one more where first contact was made for a waiting name, which keeps its order
	if n := len(e.CA.Orders()); n > 2 {
		t.Errorf("%d orders for one name with a record and 1000 without, want at most 2", n)
	}
	if failed := e.CA.FailedValidations(); len(failed) != 0 {
		t.Errorf("failed validations: %v", failed)
	}
}

func TestRestartMakesNoOrder(t *testing.T) {
	e := harness.New(t, harness.Options{})
	name := e.Name("restart")
	account := e.Bind()
	e.Publish(name, e.Value(account, false))
	config := e.Global() + e.Site(name, e.Block())
	e.Load(config)
	first := e.WaitTrusted(name, harness.Soon)
	e.Stop()
	e.Load(config)
	again := e.WaitTrusted(name, harness.Soon)
	if first.SerialNumber.Cmp(again.SerialNumber) != 0 {
		t.Error("a restart obtained another certificate")
	}
	e.AssertClean(1)
	if got := e.Bind(); got != account {
		t.Errorf("after a restart the account is %s, want %s", got, account)
	}
}

func TestKeptOrderSurvivesARestart(t *testing.T) {
	e := harness.New(t, harness.Options{})
	name := e.Name("kept")
	value := e.Value(e.Bind(), false)
	config := e.Global() + e.Site(name, e.Block())
	e.Load(config)
	e.Asked(name)
	if files, _ := filepath.Glob(filepath.Join(e.Storage, "dns_persist", "*", "orders", "*.json")); len(files) != 1 {
		t.Fatalf("%d orders in storage after first contact, want 1", len(files))
	}
	e.Stop()
	e.Publish(name, value)
	e.Load(config)
	e.WaitTrusted(name, harness.Soon)
	e.AssertClean(1)
	if files, _ := filepath.Glob(filepath.Join(e.Storage, "dns_persist", "*", "orders", "*.json")); len(files) != 0 {
		t.Errorf("finished orders stay in storage: %v", files)
	}
}
