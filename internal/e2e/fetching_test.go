package e2e

import (
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
