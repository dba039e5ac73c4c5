package e2e

// Certificates at a CA that takes long or says no, and what is said of records that stand.

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
	"github.com/dnspersist/caddy-dnspersist/internal/e2e/harness"
	"github.com/dnspersist/caddy-dnspersist/internal/tuning"
)

// logged waits for an entry whose text has all the parts, and returns it.
func logged(e *harness.Env, message string, parts ...string) map[string]any {
	e.T.Helper()
	var found map[string]any
	e.Eventually(harness.Soon, message, func() error {
		for _, l := range e.Logs(message) {
			text, all := fmt.Sprint(l), true
			for _, p := range parts {
				all = all && strings.Contains(text, p)
			}
			if all {
				found = l
				return nil
			}
		}
		return fmt.Errorf("no entry with %q", parts)
	})
	return found
}

// A CA that takes long over a validation holds up nothing: the domain waits with its
// order, and that order is gone on with, after a reload and a restart as well. Whether the
// CA shows the challenge as processing or leaves it pending, it is posted once.
func TestSlowValidation(t *testing.T) {
	for _, shown := range []string{"processing", "pending"} {
		t.Run(shown, func(t *testing.T) {
			e := harness.New(t, harness.Options{Tuning: func(v *tuning.Values) { v.InlineProcessing = time.Second }})
			e.CA.SetValidationDelay(12 * time.Second)
			if shown == "pending" {
				e.CA.MutateAuthz(func(authz map[string]any) {
					challenges, _ := authz["challenges"].([]any)
					for _, c := range challenges {
						if c, ok := c.(map[string]any); ok && c["status"] == "processing" {
							c["status"] = "pending"
						}
					}
				})
			}
			name := e.Name("slow")
			e.Publish(name, e.Value(e.Bind(), false))
			config := e.Global() + e.Site(name, e.Block())
			e.Load(config)
			logged(e, "could not get certificate from issuer", "ca_processing", name)
			// what DNS shows meanwhile is not for us to judge
			e.Publish(name)
			e.Stop()
			e.Load(config)
			e.WaitTrusted(name, harness.Soon)
			e.AssertClean(1)
			if n := e.CA.Count("challenge"); n != 1 {
				t.Errorf("the challenge was posted %d times, want once", n)
			}
			logged(e, "going on with the order", name)
		})
	}
}

// CAA records that forbid the certificate are found before the CA is asked, and the
// certificate follows when they allow it.
func TestCAA(t *testing.T) {
	for name, tt := range map[string]struct{ value, reason string }{
		"another CA":      {`0 issue "other.example"`, "allows another CA"},
		"another method":  {`0 issue "` + harness.IssuerName + `; validationmethods=http-01"`, "does not list dns-persist-01"},
		"another account": {`0 issue "` + harness.IssuerName + `; accounturi=https://ca.example/2"`, "another account"},
	} {
		t.Run(name, func(t *testing.T) {
			e := harness.New(t, harness.Options{})
			site := e.Name("caa")
			e.Publish(site, e.Value(e.Bind(), false))
			_, above, _ := strings.Cut(site, ".")
			e.DNS.SetRR(0, above+". CAA "+tt.value)
			config := e.Global() + e.Site(site, e.Block())
			e.Load(config)
			logged(e, "could not get certificate from issuer", "the CAA records at "+above, tt.reason)
			e.AssertClean(1) // the one that shows what the CA offers
			if n := e.CA.Count("challenge"); n != 0 {
				t.Errorf("%d challenges were posted", n)
			}
			e.DNS.ClearName(0, above)
			e.DNS.SetRR(0, above+`. CAA 0 issue "`+harness.IssuerName+`; validationmethods=dns-persist-01"`)
			e.Load(strings.Replace(config, "served by caddy", "served again", 1))
			e.WaitTrusted(site, harness.Soon)
			e.AssertClean(1)
		})
	}
}

// A CA that says no although every server shows the record is quoted, with what to look
// at, and its budget is kept.
func TestCADisagrees(t *testing.T) {
	e := harness.New(t, harness.Options{})
	name := e.Name("no")
	e.Publish(name, e.Value(e.Bind(), false))
	// the first name teaches what the CA offers and where the zone is
	first := e.Name("first")
	e.Publish(first, e.Value(e.Bind(), false))
	e.Load(e.Global() + e.Site(first, e.Block()))
	e.WaitTrusted(first, harness.Soon)
	// the recursive server, which Pebble asks, fails once the order is there
	e.CA.MutateAuthz(func(map[string]any) { e.DNS.SetMode(0, "servfail") })
	e.Load(e.Global() + e.Site(first, e.Block()) + e.Site(name, e.Block()))
	entry := logged(e, "could not get certificate from issuer", "ca_disagrees", name)
	for _, part := range []string{"2 name servers of example.test showed the record", "check"} {
		if !strings.Contains(fmt.Sprint(entry["error"]), part) {
			t.Errorf("the error lacks %q: %v", part, entry["error"])
		}
	}
	e.CA.MutateAuthz(nil)
	e.DNS.SetMode(0, "normal")
	e.WaitTrusted(name, 3*time.Minute)
	if n := len(e.CA.FailedValidations()); n != 1 {
		t.Errorf("%d validations failed, want 1", n)
	}
}

// A record that vanishes, is taken from one server, is changed, or ends soon is said on the
// day, although no renewal is near; the CA is not asked.
func TestStandingRecordsAreLookedAt(t *testing.T) {
	e := harness.New(t, harness.Options{Lifetime: 90 * 24 * time.Hour, Tuning: func(v *tuning.Values) { v.LookAtNames = time.Second }})
	account := e.Bind()
	gone, partly, other, ends, fine := e.Name("gone"), e.Name("partly"), e.Name("other"), e.Name("ends"), e.Name("fine")
	config := e.Global()
	for _, name := range []string{gone, partly, other, ends, fine} {
		e.Publish(name, e.Value(account, false))
		config += e.Site(name, e.Block())
	}
	e.Load(config)
	for _, name := range []string{gone, partly, other, ends, fine} {
		e.WaitTrusted(name, harness.Soon)
	}
	e.AssertClean(5)
	e.Publish(gone)
	e.PublishOn(1, partly)
	e.Publish(other, "ca.example; accounturi=x:y", e.Value(account, true))
	e.Publish(ends, record.Value{IssuerDomainName: harness.IssuerName, AccountURI: account, PersistUntil: time.Now().Add(80 * 24 * time.Hour)}.String())

	entry := logged(e, "is gone or was changed", gone)
	if entry["value"] != e.Value(account, false) || entry["days_left"] == nil {
		t.Errorf("the entry does not say what to publish and until when: %v", entry)
	}
	logged(e, "is not on all name servers", partly, "192.0.2.1")
	logged(e, "was replaced by another one", other)
	logged(e, "the record ends soon", ends)
	for _, l := range append(e.Logs("is gone or was changed"), e.Logs("is not on all")...) {
		if strings.Contains(fmt.Sprint(l), fine) {
			t.Errorf("said of a record that stands: %v", l)
		}
	}
	e.AssertClean(5)
}

// Without a look at DNS nobody watches a name that the CA has refused: CertMagic tries it
// again.
func TestRefusedWithoutACheck(t *testing.T) {
	e := harness.New(t, harness.Options{})
	name := e.Name("none")
	value := e.Value(e.Bind(), false)
	e.Load(e.Global() + e.Site(name, e.Block("check none")))
	logged(e, "could not get certificate from issuer", "did not validate", name)
	e.Publish(name, value)
	e.WaitTrusted(name, 3*time.Minute)
}
