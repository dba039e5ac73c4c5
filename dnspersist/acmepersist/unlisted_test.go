package acmepersist

import (
	"encoding/json"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/ca"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/site"
)

// sessionAt is a session at a CA with this in its directory's meta.
func sessionAt(t *testing.T, meta string, cfg Config) *session {
	t.Helper()
	d := &ca.Directory{}
	if err := json.Unmarshal([]byte(meta), &d.Meta); err != nil {
		t.Fatal(err)
	}
	cfg.CA = "https://ca.example/dir"
	iss := New(cfg)
	s := iss.sessionWith(iss.ca.At(d))
	s.account.URL = "https://ca.example/acct/1"
	s.account.Thumbprint = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
	return s
}

// A configured name that the directory does not promise is said before any order, once.
func TestIssuerThatIsNotListed(t *testing.T) {
	const meta = `{"accountHashPrefix":"https://ca.example/h/","issuerDomainNames":["a.example","b.example"]}`
	for mine, listed := range map[string]bool{"b.example": true, "c.example": false, "": true} {
		core, logs := observer.New(zap.WarnLevel)
		s := sessionAt(t, meta, Config{IssuerDomainName: mine, Logger: zap.New(core)})
		for range 3 {
			if _, err := s.Terms(ca.Offer{}); err != nil {
				t.Fatal(err)
			}
		}
		p, err := s.probe(ca.Offer{})
		if err != nil {
			t.Fatal(err)
		}
		told := (&siteSession{s, new(site.Site)}).wanted(nil).Note
		if listed != (logs.Len() == 0) || listed != (p.Note == "") || listed != (told == "") {
			t.Errorf("%s: logged %v, probe says %q, records say %q", mine, logs.All(), p.Note, told)
		}
		if !listed && (logs.Len() != 1 || !strings.Contains(p.Note, "issuer_domain_name is c.example") || !strings.Contains(p.Note, "a.example, b.example only")) {
			t.Errorf("logged %v, probe says %q", logs.All(), p.Note)
		}
	}
	// a directory of an older draft promises nothing
	if note := sessionAt(t, `{"caaIdentities":["a.example"]}`, Config{IssuerDomainName: "c.example"}).UnlistedIssuer(); note != "" {
		t.Error(note)
	}
}
