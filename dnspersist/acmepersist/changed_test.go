package acmepersist_test

import (
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddyserver/certmagic"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
	"github.com/dnspersist/caddy-dnspersist/internal/lab"
)

// A CA that asks for other records than before is logged once, and with the next look at a name, which
// is due at once, the record to publish.
func TestCAThatAsksForOtherRecords(t *testing.T) {
	i := newIssuing(t)
	core, logs := observer.New(zap.WarnLevel)
	i.with(zap.New(core), nil)
	look := func(changes, records int) {
		t.Helper()
		if err := i.ReadDirectory(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := i.LookAtNames(t.Context(), 24*time.Hour); err != nil {
			t.Fatal(err)
		}
		if n := logs.FilterMessageSnippet("the CA has changed what records have to say").Len(); n != changes {
			t.Fatalf("a change was logged %d times, want %d", n, changes)
		}
		if n := logs.FilterMessageSnippet("publish this TXT record beside the published ones").Len(); n != records {
			t.Fatalf("%d records were logged, want %d: %v", n, records, logs.All())
		}
	}
	cert, err := i.issueKey(t.Context(), issuedName, i.newKey())
	if err != nil {
		t.Fatal(err)
	}
	// as CertMagic does
	if err := i.Storage.Store(t.Context(), certmagic.StorageKeys.SiteCert(i.IssuerKey(), issuedName), cert.Certificate); err != nil {
		t.Fatal(err)
	}
	look(0, 0)
	i.ca.SetDialect(lab.Dialect{Draft: "02"})
	// a look that was going on when the CA changed, and ended later, did not know of it
	if err := i.ReadDirectory(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := state.New(i.Storage, i.CA).UpdateName(t.Context(), "_validation-persist."+issuedName, func(n *state.Name) bool {
		n.LookedAt = time.Now().Add(time.Second)
		return true
	}); err != nil {
		t.Fatal(err)
	}
	look(1, 1)
	look(1, 1)
	fields := logs.FilterMessageSnippet("publish this TXT record beside").All()[0].ContextMap()
	for _, field := range []string{"name", "value", "published_values", "needed_by", "days_left", "domains", "ca"} {
		if fields[field] == nil {
			t.Errorf("the entry has no %s: %v", field, fields)
		}
	}
	// what a look has found is not forgotten with the process
	if looked := i.state().Looked; looked != "confirming" { // by all servers, as one look can tell
		t.Errorf("the record was found %q", looked)
	}
	i.dns.ClearName(0, "_validation-persist."+issuedName)
	if err := i.LookAtNames(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if looked := i.state().Looked; looked != "absent" {
		t.Errorf("a record that is gone was found %q", looked)
	}
}
