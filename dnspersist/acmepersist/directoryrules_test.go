package acmepersist

import (
	"encoding/json"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

// sessionAt is a session at a CA with this in its directory's meta.
func sessionAt(t *testing.T, meta string, cfg Config) *session {
	t.Helper()
	d := &directory{}
	if err := json.Unmarshal([]byte(meta), &d.Meta.directoryMeta); err != nil {
		t.Fatal(err)
	}
	cfg.CA = "https://ca.example/dir"
	iss := New(cfg)
	s := &session{iss: iss, directory: d, wire: &wire{directory: d}, logger: iss.logger()}
	s.account.Location = "https://ca.example/acct/1"
	s.thumbprint = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
	return s
}

// Section 3.2 of draft -02: a directory with one name that does not conform promises nothing, so
// nothing is held against a challenge, and no record is made before one. Identities are compared
// with all names of the challenge.
func TestDirectoryRules(t *testing.T) {
	const prefix = `"accountHashPrefix":"https://ca.example/h/",`
	for name, tt := range map[string]struct{ meta, challenge, names, refused, predicted string }{
		"all conform":                     {`"issuerDomainNames":["a.example","b.example"]`, `["a.example","b.example","c.example"]`, "a.example b.example c.example", "", "a.example b.example"},
		"one is missing":                  {`"issuerDomainNames":["a.example","b.example"]`, `["a.example"]`, "", "lacks the issuer domain name b.example", "a.example b.example"},
		"one does not conform":            {`"issuerDomainNames":["a.example","B.example"]`, `["a.example"]`, "a.example", "", ""},
		"the good one is not offered":     {`"issuerDomainNames":["a.example","B.example"]`, `["c.example"]`, "c.example", "", ""},
		"a challenge of mixed names":      {`"issuerDomainNames":["a.example"]`, `["a.example","B.example"]`, "a.example", "", "a.example"},
		"which are no identities":         {`"issuerDomainNames":["a.example"],"caaIdentities":["a.example"]`, `["a.example","B.example"]`, "", `"B.example" is not among`, "a.example"},
		"identities as U-labels":          {`"issuerDomainNames":["xn--mller-kva.example"],"caaIdentities":["M\u00fcller.example."]`, `["xn--mller-kva.example"]`, "xn--mller-kva.example", "", "xn--mller-kva.example"},
		"and not among them":              {`"issuerDomainNames":["a.example"],"caaIdentities":["M\u00fcller.example."]`, `["a.example"]`, "", `"a.example" is not among the directory's caaIdentities xn--mller-kva.example`, "a.example"},
		"identities that are none at all": {`"issuerDomainNames":["a.example"],"caaIdentities":["b.example","x y"]`, `["a.example"]`, "a.example", "", "a.example"},
		"no names, but identities":        {`"caaIdentities":["a.example"]`, `["a.example"]`, "a.example", "", ""},
	} {
		s := sessionAt(t, "{"+prefix+tt.meta+"}", Config{})
		predicted, err := s.predict(offer{})
		if err != nil || strings.Join(predicted.names, " ") != tt.predicted || s.directory.promises() != (tt.predicted != "") {
			t.Errorf("%s: predicted %q, %v, want %q", name, predicted.names, err, tt.predicted)
		}
		var m challengeMembers
		if err := json.Unmarshal([]byte(`{"issuerDomainNames":`+tt.challenge+`}`), &m); err != nil {
			t.Fatal(err)
		}
		got, err := s.challengeTerms(t.Context(), m, "example.com")
		if tt.refused != "" {
			if err == nil || !strings.Contains(err.Error(), tt.refused) || !strings.Contains(err.Error(), "the CA's fault") {
				t.Errorf("%s: %v, want %q", name, err, tt.refused)
			}
		} else if err != nil || strings.Join(got.names, " ") != tt.names || got.dialect != record.DialectHashed {
			t.Errorf("%s: %+v, %v, want %q", name, got, err, tt.names)
		}
	}
}

// A configured name that the directory does not promise is said before any order, once.
func TestIssuerThatIsNotListed(t *testing.T) {
	const meta = `{"accountHashPrefix":"https://ca.example/h/","issuerDomainNames":["a.example","b.example"]}`
	for mine, listed := range map[string]bool{"b.example": true, "c.example": false, "": true} {
		core, logs := observer.New(zap.WarnLevel)
		s := sessionAt(t, meta, Config{IssuerDomainName: mine, Logger: zap.New(core)})
		for range 3 {
			if _, err := s.predict(offer{}); err != nil {
				t.Fatal(err)
			}
		}
		p, err := s.probe(offer{})
		if err != nil {
			t.Fatal(err)
		}
		told := s.wanted(wanted{}, nil).Note
		if listed != (logs.Len() == 0) || listed != (p.Note == "") || listed != (told == "") {
			t.Errorf("%s: logged %v, probe says %q, records say %q", mine, logs.All(), p.Note, told)
		}
		if !listed && (logs.Len() != 1 || !strings.Contains(p.Note, "issuer_domain_name is c.example") || !strings.Contains(p.Note, "a.example, b.example only")) {
			t.Errorf("logged %v, probe says %q", logs.All(), p.Note)
		}
	}
	// a directory of an older draft promises nothing
	if s := sessionAt(t, `{"caaIdentities":["a.example"]}`, Config{IssuerDomainName: "c.example"}); s.unlistedIssuer() != "" {
		t.Error(s.unlistedIssuer())
	}
}
