package ca

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

// testIdentity is an account that records name.
var testIdentity = Identity{
	URL: "https://ca.example/acct/1", URI: "https://ca.example/acct/1", Thumbprint: "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs",
}

// clientAt is a conversation with a CA that has this in its directory's meta.
func clientAt(t *testing.T, meta string, cfg Config) *Client {
	t.Helper()
	d := &Directory{URL: "https://ca.example/dir"}
	if err := json.Unmarshal([]byte(meta), &d.Meta.directoryMeta); err != nil {
		t.Fatal(err)
	}
	cfg.URL, cfg.Logger = d.URL, zap.NewNop()
	return New(cfg).At(d)
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
		c := clientAt(t, "{"+prefix+tt.meta+"}", Config{Dialect: DialectAuto})
		predicted, err := c.Terms(Offer{})
		if err != nil || strings.Join(predicted.Names, " ") != tt.predicted || c.Directory.HasTerms() != (tt.predicted != "") {
			t.Errorf("%s: predicted %q, %v, want %q", name, predicted.Names, err, tt.predicted)
		}
		var m challengeMembers
		if err := json.Unmarshal([]byte(`{"issuerDomainNames":`+tt.challenge+`}`), &m); err != nil {
			t.Fatal(err)
		}
		got, err := c.challengeTerms(t.Context(), m, "example.com", testIdentity)
		if tt.refused != "" {
			if err == nil || !strings.Contains(err.Error(), tt.refused) || !strings.Contains(err.Error(), "the CA's fault") {
				t.Errorf("%s: %v, want %q", name, err, tt.refused)
			}
		} else if err != nil || strings.Join(got.Names, " ") != tt.names || got.Dialect != record.DialectHashed {
			t.Errorf("%s: %+v, %v, want %q", name, got, err, tt.names)
		}
	}
}

// A clock that was ahead when a CA refused does not hold up anything afterwards.
func TestOfferOfAClockThatWasAhead(t *testing.T) {
	now := time.Now()
	later := now.AddDate(1, 0, 0)
	no := false
	o := Offer{CA: "https://ca.test/dir", Offered: &no, SeenAt: later, Directory: &directoryTerms{At: later}}
	o.repair(now)
	if err := clientAt(t, "{}", Config{}).Refusal(o, false); err != nil || o.Directory.At.After(now) {
		t.Errorf("%v, %+v", err, o)
	}
}
