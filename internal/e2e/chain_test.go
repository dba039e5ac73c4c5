package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dnspersist/caddy-dnspersist/internal/e2e/harness"
	"github.com/dnspersist/caddy-dnspersist/internal/tuning"
)

// chained is a site with dns_persist and then Caddy's internal issuer.
func chained(e *harness.Env, names string) string {
	return fmt.Sprintf("%s {\n\ttls {\n\t\tissuer dns_persist %s\n\t\tissuer internal {\n\t\t\tlifetime 15s\n\t\t}\n\t}\n\trespond \"hi\"\n}\n", names, e.Block())
}

// internalServes waits until Caddy serves the internal issuer's certificate.
func internalServes(e *harness.Env, name string) {
	e.T.Helper()
	e.Eventually(harness.Soon, "the next issuer's certificate for "+name, func() error {
		cert, err := e.Served(name)
		if err == nil && !strings.Contains(cert.Issuer.CommonName, "Caddy Local Authority") {
			err = fmt.Errorf("issued by %s", cert.Issuer)
		}
		return err
	})
}

// A CA that does not offer the challenge: said plainly, once, and the next issuer serves;
// when the CA begins to, the next renewal uses it.
func TestNextIssuerUntilTheCAOffersIt(t *testing.T) {
	e := harness.New(t, harness.Options{Tuning: func(v *tuning.Values) { v.NotOfferedRenewal = time.Second }})
	account := e.Bind()
	one, two := e.Name("one"), e.Name("two")
	for _, n := range []string{one, two} {
		e.Publish(n, e.Value(account, false))
	}
	e.CA.SetOffer(false)
	e.Load(e.Global("renew_interval 1s", "skip_install_trust") + chained(e, one+", "+two))
	internalServes(e, one)
	internalServes(e, two)
	if n := len(e.Logs("the CA does not offer dns-persist-01")); n == 0 {
		t.Error("the log does not say that the CA does not offer the challenge")
	}
	if n := len(e.CA.Orders()); n != 1 {
		t.Errorf("two names of a CA that does not offer the challenge made %d orders, want 1", n)
	}
	offered := len(e.DNS.Queries())
	for _, q := range e.DNS.Queries() {
		if strings.Contains(q.Name, "_validation-persist") {
			t.Errorf("server %d was asked for %s although the CA does not offer the challenge", q.Server, q.Name)
		}
	}
	_ = offered
	e.CA.SetOffer(true)
	e.WaitTrusted(one, harness.Soon)
	e.WaitTrusted(two, harness.Soon)
	if failed := e.CA.FailedValidations(); len(failed) != 0 {
		t.Errorf("failed validations: %v", failed)
	}
}

// Beside another issuer an absent record means the other's turn at once; the record is
// asked for all the same.
func TestNextIssuerServesWhileTheRecordIsAbsent(t *testing.T) {
	e := harness.New(t, harness.Options{})
	e.Bind()
	name := e.Name("absent")
	start := time.Now()
	e.Load(e.Global("skip_install_trust") + chained(e, name))
	internalServes(e, name)
	if took := time.Since(start); took > 15*time.Second {
		t.Errorf("the next issuer had its turn after %s", took)
	}
	e.Asked(name)
}

// Alone with such a CA a domain waits: one error, one order, no loop.
func TestAloneWithACAThatDoesNotOfferIt(t *testing.T) {
	e := harness.New(t, harness.Options{})
	account := e.Bind()
	name := e.Name("alone")
	e.Publish(name, e.Value(account, false))
	e.CA.SetOffer(false)
	e.Load(e.Global() + e.Site(name, e.Block()))
	e.Eventually(harness.Soon, "the error", func() error {
		for _, l := range e.Logs("could not get certificate from issuer") {
			if strings.Contains(fmt.Sprint(l["error"]), "does not offer the challenge dns-persist-01") {
				return nil
			}
		}
		return fmt.Errorf("no entry")
	})
	if n := len(e.Logs("will retry")); n != 0 {
		t.Error("CertMagic retries a name whose CA does not offer the challenge")
	}
	if n := len(e.CA.Orders()); n != 1 {
		t.Errorf("%d orders, want 1", n)
	}
}

// An authorization that is valid already may have been validated by another challenge: it
// says nothing about what the CA offers.
func TestValidAuthorizationTeachesNothing(t *testing.T) {
	e := harness.New(t, harness.Options{})
	e.Bind()
	name := e.Name("valid")
	e.CA.SetOffer(false)
	e.CA.MutateAuthz(func(authz map[string]any) { authz["status"] = "valid" })
	e.Load(e.Global() + e.Site(name, e.Block()))
	e.Eventually(harness.Soon, "the order", func() error { return harness.AtLeast(e.CA.Count("authz"), 1) })
	e.Eventually(harness.Soon, "the end of the attempt", func() error {
		return harness.AtLeast(len(e.Logs("releasing lock"))+len(e.Logs("will retry")), 1)
	})
	files, err := filepath.Glob(filepath.Join(e.Storage, "dns_persist", "*", "ca.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(data), `"offered"`) {
			t.Errorf("a valid authorization has taught us %s", data)
		}
	}
	if n := len(e.Logs("does not offer dns-persist-01")); n != 0 {
		t.Error("the CA was said not to offer the challenge")
	}
}
