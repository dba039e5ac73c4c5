package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/dnspersist/caddy-dnspersist/internal/e2e/harness"
)

func TestPlainName(t *testing.T) {
	e := harness.New(t, harness.Options{})
	name := e.Name("www")
	e.Publish(name, e.Value(e.Bind(), false))
	e.Load(e.Global() + e.Site(name, e.Block()))
	e.WaitTrusted(name, harness.Soon)
	e.AssertClean(1)
}

func TestApexAndWildcardShareOneRecord(t *testing.T) {
	e := harness.New(t, harness.Options{})
	apex := e.Name("apex")
	e.Load(e.Global() + e.Site(apex+", *."+apex, e.Block()))

	var value string
	e.Eventually(harness.Soon, "the record to be asked for", func() error {
		logs := e.Logs("publish this TXT record once")
		if len(logs) == 0 {
			return fmt.Errorf("no entry")
		}
		value, _ = logs[0]["value"].(string)
		return nil
	})
	if !strings.HasSuffix(value, "; policy=wildcard") {
		t.Errorf("the record asked for is %q, want it with the policy", value)
	}
	e.Publish(apex, value)
	e.WaitTrusted(apex, harness.Soon)
	e.WaitTrusted("anything."+apex, harness.Soon)
	if n := len(e.Logs("publish this TXT record once")); n != 1 {
		t.Errorf("the record was asked for %d times, want once", n)
	}
	e.AssertClean(2)
}

func TestTwoCAsAtOneValidationName(t *testing.T) {
	e := harness.New(t, harness.Options{})
	other := e.NewCA(harness.Options{})
	name := e.Name("shared")
	e.Publish(name, e.Value(e.Bind(), false), e.ValueFor(other, e.BindFor(other), true))
	e.Load(e.Global() + e.Site(name, e.Block()) + e.Site("*."+name, e.BlockFor(other)))
	e.WaitTrusted(name, harness.Soon)
	e.Eventually(harness.Soon, "the other CA's certificate", func() error { return e.TrustedBy(other, "x."+name) })
	e.AssertClean(1)
	e.AssertCleanFor(other, 1)
}

func TestLateRecordIsNotAskedForTooEarly(t *testing.T) {
	e := harness.New(t, harness.Options{})
	name := e.Name("late")
	value := e.Value(e.Bind(), false)
	e.Load(e.Global() + e.Site(name, e.Block()))
	e.Eventually(harness.Soon, "the record to be asked for", func() error { return harness.Want(len(e.Logs("publish this TXT record once")), 1) })

	e.PublishOn(1, name, value)
	e.Eventually(harness.Soon, "the first server's record to be seen", func() error {
		for _, l := range e.Logs("record changed in DNS") {
			if l["status"] == "partial" {
				return nil
			}
		}
		return fmt.Errorf("not yet")
	})
	if n := e.CA.Count("challenge"); n != 0 {
		t.Fatalf("%d challenges were posted before the second server had the record", n)
	}
	complete := time.Now()
	e.PublishOn(2, name, value)
	e.WaitTrusted(name, harness.Soon)
	for _, c := range e.CA.Requests("challenge") {
		if c.Time.Before(complete) {
			t.Errorf("a challenge was posted at %s, the last server had the record at %s", c.Time, complete)
		}
	}
	e.AssertClean(1)
}

func TestRenewalByMaintenance(t *testing.T) {
	e := harness.New(t, harness.Options{Lifetime: 12 * time.Second})
	name := e.Name("renew")
	account := e.Bind()
	e.Publish(name, e.Value(account, false))
	e.Load(e.Global("renew_interval 1s") + e.Site(name, e.Block()))
	serials := map[string]bool{}
	e.Eventually(2*time.Minute, "three certificates one after another", func() error {
		cert, err := e.Trusted(name)
		if err != nil {
			return err
		}
		serials[cert.SerialNumber.String()] = true
		return harness.AtLeast(len(serials), 3)
	})
	if e.CA.Count("renewal-info") == 0 {
		t.Error("renewal information was never asked for")
	}
	replaces := 0
	for _, o := range e.CA.Orders() {
		if o.Account != account {
			t.Errorf("an order was made with account %s, want %s", o.Account, account)
		}
		if o.Replaces != "" {
			replaces++
		}
	}
	if replaces == 0 {
		t.Error("no order said which certificate it replaces")
	}
	if n := len(e.CA.FailedValidations()); n != 0 {
		t.Errorf("%d failed validations, want 0", n)
	}
	// one more renewal may be under way
	e.Eventually(harness.Soon, "as many certificates as orders", func() error {
		return harness.Want(len(e.CA.Orders()), e.CA.Certificates())
	})
}
