package publish

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
	"github.com/dnspersist/caddy-dnspersist/internal/e2e/harness"
)

// Tenants of a platform: the first visit has the record written at the tenant's label, and is
// not held up by a slow provider; the certificate follows when the tenant has set its CNAME.
func TestOnDemandTenants(t *testing.T) {
	e, a := newEnv(t, options(0))
	permission := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(permission.Close)
	zone := "certs." + e.Name("platform")
	e.DNS.AddZone(zone)
	e.Load(e.Global("on_demand_tls {\n\t\task "+permission.URL+"\n\t}") +
		"https:// {\n\ttls {\n\t\ton_demand\n\t\tissuer dns_persist " + e.Block(a.block(), "delegate_to "+zone) + "\n\t}\n\trespond \"hi\"\n}\n")

	quick, slow := e.Name("quick"), e.Name("slow")
	visit := func(name string) {
		t.Helper()
		if _, err := e.Trusted(name); err == nil {
			t.Errorf("%s has a certificate before its CNAME", name)
		}
	}
	visit(quick)
	if got := a.at(record.DelegationLabel(quick) + "." + zone); len(got) != 1 {
		t.Errorf("the first visit has written %q", got)
	}
	alias(e, quick, delegated(e, quick))
	e.WaitTrusted(quick, harness.Soon)

	a.lag = 15 * time.Second
	visit(slow)
	e.Eventually(harness.Soon, "the handshake to be let go before the write is seen", func() error {
		for _, l := range e.Logs("could not get certificate from issuer") {
			if l["identifier"] == slow && strings.Contains(fmt.Sprint(l["error"]), "longer than a TLS handshake can wait, and goes on in the background") {
				return nil
			}
		}
		return fmt.Errorf("no entry")
	})
	alias(e, slow, record.DelegationLabel(slow)+"."+zone)
	e.WaitTrusted(slow, harness.Soon)
	if n := a.count("append", record.DelegationLabel(slow)+"."+zone); n != 1 {
		t.Errorf("%d writes, want 1", n)
	}
	if n := len(e.Logs("the record could not be published")); n != 0 {
		t.Errorf("a slow write is said to have failed %d times", n)
	}
	if n := len(e.CA.FailedValidations()); n != 0 {
		t.Errorf("%d failed validations", n)
	}
}
