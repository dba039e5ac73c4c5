package acmepersist_test

import (
	"encoding/json"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/internal/lab"
)

// Whatever a renewal waits for, it is known to be one: a first certificate is asked for by managing the
// name, of which CertMagic makes nothing while it has the old certificate, and the name would be left
// to its back-off of hours.
func TestHeldRenewalIsKnownAsOne(t *testing.T) {
	t.Parallel()
	for what, hold := range map[string]func(i *issuing){
		"a limit of the CA": func(i *issuing) { i.ca.Inject(lab.TooMany("example.test", time.Hour)) },
		"the budget": func(i *issuing) {
			now := time.Now()
			i.write(map[string]any{"name": "_validation-persist." + issuedName, "attempts": []time.Time{now, now, now, now}}, "names", "_validation-persist."+issuedName+".json")
		},
		"no offer": func(i *issuing) {
			i.write(map[string]any{"ca": i.ca.Directory(), "offered": false, "seen_at": time.Now(), "other_types": []string{"dns-01"}}, "ca.json")
		},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			i := newIssuing(t)
			cert, err := i.issueKey(t.Context(), issuedName, i.newKey())
			if err != nil {
				t.Fatal(err)
			}
			if err := i.Storage.Store(t.Context(), certmagic.StorageKeys.SiteCert(i.IssuerKey(), issuedName), cert.Certificate); err != nil {
				t.Fatal(err)
			}
			i.Issuer = i.another()
			hold(i)
			var held *acmepersist.Hold
			if err := i.issue(t.Context()); !errors.As(err, &held) {
				t.Fatalf("the error is %v", err)
			}
			if held.Domain != issuedName || held.NotAfter.IsZero() {
				t.Errorf("%q is held with a certificate until %v: %v", held.Domain, held.NotAfter, held.Err)
			}
		})
	}
}

// write writes a file of the CA's folder.
func (i *issuing) write(value any, parts ...string) {
	i.t.Helper()
	data, err := json.Marshal(value)
	if err != nil {
		i.t.Fatal(err)
	}
	if err := os.WriteFile(i.file(parts...), data, 0o600); err != nil {
		i.t.Fatal(err)
	}
}
