package e2e

import (
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/dnspersist/caddy-dnspersist/internal/e2e/harness"
	"github.com/dnspersist/caddy-dnspersist/internal/lab"
)

// A reload that comes while a certificate is fetched costs no other one: it is fetched, stored
// and served by the configuration that comes.
func TestReloadWhileACertificateIsFetched(t *testing.T) {
	e := harness.New(t, harness.Options{})
	name := e.Name("fetching")
	e.Publish(name, e.Value(e.Bind(), false))
	e.CA.Inject(lab.Fault{Step: "certificate", Status: http.StatusInternalServerError, RetryAfter: "1", Times: 2})
	config := e.Global() + e.Site(name, e.Block())
	e.Load(config)
	e.Eventually(harness.Soon, "the first try to fetch it", func() error { return harness.AtLeast(e.CA.Count("certificate"), 1) })
	e.Load(config + e.Site(e.Name("another"), e.Block()))
	e.WaitTrusted(name, 15*time.Second)
	if n := len(e.CA.Orders()); n != 1 {
		t.Errorf("%d orders were made, want 1", n)
	}
}

// CertMagic waits after a renewal that failed, and does not learn that the app has put it right:
// the one after it is in time all the same.
func TestRenewalAfterOneThatWaited(t *testing.T) {
	e := harness.New(t, harness.Options{Lifetime: 18 * time.Second})
	// Pebble's renewal window is days long, whatever the certificate's life is
	e.CA.MutateDirectory(func(d map[string]any) { delete(d, "renewalInfo") })
	name := e.Name("again")
	value := e.Value(e.Bind(), false)
	e.Publish(name, value)
	e.Load(e.Global("renew_interval 1s") + e.Site(name, e.Block()))
	cert := e.WaitTrusted(name, harness.Soon)
	e.Publish(name)
	e.Asked(name)
	e.Publish(name, value)
	for _, what := range []string{"the renewal that had to wait", "the one after it"} {
		e.Eventually(time.Until(cert.NotAfter), what, func() error {
			next, err := e.Trusted(name)
			if err != nil {
				return err
			}
			if next.SerialNumber.Cmp(cert.SerialNumber) == 0 {
				return errors.New("still the one before")
			}
			cert = next
			return nil
		})
	}
}
