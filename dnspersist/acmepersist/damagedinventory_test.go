package acmepersist_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
)

// A file of the inventory that cannot be read keeps its own records from being removed, and neither
// others nor a certificate.
func TestDamagedInventoryKeepsItsOwnRecordsOnly(t *testing.T) {
	t.Parallel()
	n := newTenants(t, func(c *acmepersist.Config) { c.OnDemand, c.NoWait = true, true })
	for _, domain := range []string{"left.example.test", "damaged.example.test"} {
		n.alias(domain, labelOf(domain))
		_ = n.issueFor(t.Context(), domain) // NoWait: it is seen to settle
	}
	gone := func(domain string) bool { return len(n.answer(labelOf(domain), dns.TypeTXT)) == 0 }
	if err := os.WriteFile(n.file("published", labelOf("damaged.example.test")+".json"), []byte("["), 0o600); err != nil {
		t.Fatal(err)
	}
	err := n.RemoveUnused(t.Context(), 0, nil)
	if err == nil || !strings.Contains(err.Error(), labelOf("damaged.example.test")) {
		t.Errorf("the damaged file is not told of: %v", err)
	}
	if !gone("left.example.test") || gone("damaged.example.test") {
		t.Errorf("what nobody wants: gone %v; what is not known: gone %v", gone("left.example.test"), gone("damaged.example.test"))
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		if err = n.issueFor(t.Context(), "damaged.example.test"); err == nil {
			return
		}
		if !strings.Contains(err.Error(), "record_confirming") || time.Now().After(deadline) {
			t.Fatalf("a certificate is held up: %v", err)
		}
	}
}
