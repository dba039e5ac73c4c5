package e2e

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/dnspersist/caddy-dnspersist/internal/e2e/harness"
	"github.com/dnspersist/caddy-dnspersist/internal/tuning"
)

// A fleet with standing records comes through one lane: who has queued for long holds no lock of CertMagic's meanwhile, a
// reload loses nobody, and in the end each domain has its certificate from one order. The log has no word of trouble.
func TestQueueAtTheCA(t *testing.T) {
	e := withAdmin(t, harness.Options{Tuning: func(v *tuning.Values) { v.InlineQueue = 300 * time.Millisecond }})
	e.CA.SetValidationDelay(100 * time.Millisecond)
	value, config, names := e.Value(e.Bind(), false), e.Global(), []string(nil)
	for i := range 50 {
		names = append(names, e.Name(fmt.Sprintf("q%02d", i)))
		e.Publish(names[i], value)
		config += e.Site(names[i], e.Block("max_parallel_orders 1"))
	}
	e.Load(config)
	e.Eventually(harness.Soon, "domains that are held as queued", func() error {
		queued, _ := scrape(e).of(`names{phase="held",reason="queued",source="configuration"}`)
		locks, err := filepath.Glob(filepath.Join(e.Storage, "locks", "issue_cert_*"))
		if queued < 10 || len(locks) > len(names)-10 {
			return fmt.Errorf("%v are, and there are %d locks", queued, len(locks))
		}
		return err
	})
	e.Load(config)
	for _, n := range names {
		e.WaitTrusted(n, harness.Soon)
	}
	e.AssertClean(len(names))
	for _, l := range e.Logs("") {
		if l["level"] == "error" || l["level"] == "warn" && l["logger"] == "dns_persist" {
			t.Errorf("the log has %v", l)
		}
	}
}
