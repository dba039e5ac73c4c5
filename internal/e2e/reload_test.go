package e2e

import (
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/dnspersist/caddy-dnspersist/internal/e2e/harness"
)

// Twenty reloads while names wait: the waits go on, nothing is asked for twice, and
// nothing is left when Caddy stops.
func TestTwentyReloads(t *testing.T) {
	// what Caddy and CertMagic start once for the process is not ours
	warm := harness.New(t, harness.Options{})
	name := warm.Name("warm")
	warm.Publish(name, warm.Value(warm.Bind(), false))
	warm.Load(warm.Global() + warm.Site(name, warm.Block()))
	warm.WaitTrusted(name, harness.Soon)
	warm.Stop()

	e := harness.New(t, harness.Options{})
	value := e.Value(e.Bind(), false)
	before := goleak.IgnoreCurrent()
	names := []string{e.Name("a"), e.Name("b"), e.Name("c")}
	config := e.Global()
	for _, n := range names {
		config += e.Site(n, e.Block())
	}
	e.Load(config)
	for _, n := range names {
		e.Asked(n)
	}
	for range 20 {
		e.Load(config)
	}
	for _, n := range names {
		e.Publish(n, value)
	}
	for _, n := range names {
		e.WaitTrusted(n, 15*time.Second)
	}
	if n := len(e.Logs("publish this TXT record once")); n != len(names) {
		t.Errorf("%d records were asked for through twenty reloads, want each of %d once", n, len(names))
	}
	e.AssertClean(len(names))
	e.Stop()
	e.CA.HTTPClient().CloseIdleConnections()
	err := harness.Eventually(20*time.Second, func() error {
		return goleak.Find(before,
			// CertMagic's job queue, cache maintenance and lock refreshers outlive a configuration
			goleak.IgnoreAnyFunction("github.com/caddyserver/certmagic.(*jobManager).worker"),
			goleak.IgnoreAnyFunction("github.com/caddyserver/certmagic.(*Cache).maintainAssets"),
			goleak.IgnoreAnyFunction("github.com/caddyserver/certmagic.keepLockfileFresh"),
			// the lab's CA and name servers run until the test ends
			goleak.IgnoreAnyFunction("github.com/dnspersist/caddy-dnspersist/internal/lab.(*CA).serve"),
			goleak.IgnoreAnyFunction("net/http.(*conn).serve"),
			goleak.IgnoreAnyFunction("github.com/miekg/dns.(*Server).serveTCPConn"),
		)
	})
	if err != nil {
		t.Error(err)
	}
}
