package acmepersist_test

import (
	"context"
	"encoding/json"
	"os"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/internal/lab"
)

// notedParker is a Parker that keeps what it was last told.
type notedParker struct {
	standAlone
	last acmepersist.Parking
}

func (n *notedParker) Park(_ context.Context, p acmepersist.Parking) error {
	n.last = p
	return p.Err
}

// Whatever a renewal waits for, it is known to be one: a first certificate is asked for by managing the
// name, of which CertMagic makes nothing while it has the old certificate, and the name would be left
// to its back-off of hours.
func TestParkedRenewalIsKnownAsOne(t *testing.T) {
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
			parker := new(notedParker)
			i.Issuer = i.another()
			i.Parker = parker
			hold(i)
			if err := i.issue(t.Context()); err == nil {
				t.Fatal("there is a certificate")
			}
			if p := parker.last; p.Identifier != issuedName || p.NotAfter.IsZero() {
				t.Errorf("parked is %q with a certificate until %v: %v", p.Identifier, p.NotAfter, p.Err)
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
