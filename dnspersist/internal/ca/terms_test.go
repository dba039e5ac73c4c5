package ca

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

func TestDirectoryMeta(t *testing.T) {
	for name, tt := range map[string]struct {
		json, names, identities, prefix string
	}{
		"draft -02":               {`{"issuerDomainNames":["a.example","b.example"],"caaIdentities":["a.example"],"accountHashPrefix":"https://ca.example/h/"}`, "a.example b.example", "a.example", "https://ca.example/h/"},
		"draft -01":               {`{"caaIdentities":["A.example."]}`, "", "a.example", ""},
		"nothing":                 {`{}`, "", "", ""},
		"nulls":                   {`{"issuerDomainNames":null,"caaIdentities":null,"accountHashPrefix":null}`, "", "", ""},
		"other types":             {`{"issuerDomainNames":"a.example","caaIdentities":5,"accountHashPrefix":["x"]}`, "", "", ""},
		"one is in capitals":      {`{"issuerDomainNames":["A.example","a.example"]}`, "", "", ""},
		"one has a final dot":     {`{"issuerDomainNames":["a.example","b.example."]}`, "", "", ""},
		"one is no string":        {`{"issuerDomainNames":["a.example",5]}`, "", "", ""},
		"one is a U-label":        {`{"issuerDomainNames":["a.example","m\u00fcller.example"]}`, "", "", ""},
		"one is too long":         {`{"issuerDomainNames":["a.example","` + strings.Repeat("a.", 126) + `aa"]}`, "", "", ""},
		"one label":               {`{"issuerDomainNames":["ca"],"caaIdentities":["CA."]}`, "ca", "ca", ""},
		"identities as U-labels":  {`{"caaIdentities":["M\u00dcLLER.example.","mu\u0308ller.example","a.example"]}`, "", "xn--mller-kva.example xn--mller-kva.example a.example", ""},
		"none conforms":           {`{"issuerDomainNames":["A.example","x y"]}`, "", "", ""},
		"eleven":                  {`{"issuerDomainNames":[` + strings.TrimSuffix(strings.Repeat(`"a.example",`, 11), ",") + `]}`, "", "", ""},
		"ten times the same":      {`{"issuerDomainNames":[` + strings.TrimSuffix(strings.Repeat(`"a.example",`, 10), ",") + `]}`, "a.example", "", ""},
		"identities with a bad":   {`{"caaIdentities":["a.example","bad;value"]}`, "", "", ""},
		"prefix with a semicolon": {`{"accountHashPrefix":"https://ca.example/;policy=wildcard;"}`, "", "", ""},
		"relative prefix":         {`{"accountHashPrefix":"relative/"}`, "", "", ""},
		"prefix with white space": {`{"accountHashPrefix":"https://ca.example/ "}`, "", "", ""},
	} {
		var m directoryMeta
		if err := json.Unmarshal([]byte(tt.json), &m); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := strings.Join(m.names(), " "); got != tt.names {
			t.Errorf("%s: names %q, want %q", name, got, tt.names)
		}
		if got := strings.Join(m.Identities(), " "); got != tt.identities {
			t.Errorf("%s: identities %q, want %q", name, got, tt.identities)
		}
		if m.Prefix() != tt.prefix {
			t.Errorf("%s: prefix %q, want %q", name, m.Prefix(), tt.prefix)
		}
	}
}

func TestCheckSubsets(t *testing.T) {
	list := strings.Fields
	for name, tt := range map[string]struct{ c, d, i, want string }{
		"equal":                  {"a.a b.b", "a.a b.b", "a.a b.b", ""},
		"more in the challenge":  {"a.a b.b", "a.a", "a.a b.b c.c", ""},
		"no directory":           {"a.a", "", "", ""},
		"no identities":          {"a.a b.b", "b.b", "", ""},
		"missing in challenge":   {"a.a", "a.a b.b", "", "lacks the issuer domain name b.b"},
		"missing in identities":  {"a.a b.b", "a.a", "a.a", `"b.b" is not among the directory's caaIdentities a.a`},
		"identities, no members": {"a.a", "", "b.b", `"a.a" is not among`},
		"a nonconforming name":   {"a.a B.B", "a.a", "a.a b.b", `"B.B" is not among`},
		"without identities":     {"a.a B.B", "a.a", "", ""},
	} {
		err := checkSubsets(list(tt.c), list(tt.d), list(tt.i))
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
}

// A directory that only some frontends of a CA show is no change back, and no change is
// said twice.
func TestDirectoryChanges(t *testing.T) {
	now := time.Now()
	deployed := directoryTerms{CAAIdentities: []string{"a.example"}, At: now}
	hashed := directoryTerms{AccountHashPrefix: "https://ca.example/h/", IssuerDomainNames: []string{"a.example"}, At: now}
	moved := hashed
	moved.IssuerDomainNames = []string{"b.example"}
	named := func(bound, url string) directoryTerms {
		d := deployed
		d.AccountURLs = map[string]string{bound: url}
		return d
	}
	const bound = "https://ca.example/acct/1"
	url, otherURL := named(bound, bound), named(bound, "https://acme.ca.example/acct/1")
	otherAccount := named("https://ca.example/acct/2", "https://ca.example/acct/2")
	old := hashed
	old.At = now.Add(-prefixKept - time.Hour)
	for name, tt := range map[string]struct {
		now, old directoryTerms
		want     string
	}{
		"same":                      {deployed, deployed, ""},
		"-01 to -02":                {hashed, deployed, "accountHashPrefix was none, is https://ca.example/h/"},
		"an older frontend":         {deployed, hashed, ""},
		"back for good":             {deployed, old, "accountHashPrefix was https://ca.example/h/, is none"},
		"other names":               {moved, hashed, "the issuer domain names were a.example, are b.example"},
		"other account URL":         {otherURL, url, "the CA named the account https://ca.example/acct/1, names it https://acme.ca.example/acct/1"},
		"account URL not asked for": {deployed, url, ""},
		"another account's":         {otherAccount, url, ""},
		"after another account's":   {otherURL, otherAccount.merge(url), "the CA named the account https://ca.example/acct/1, names it https://acme.ca.example/acct/1"},
	} {
		merged := tt.now.merge(tt.old)
		if got := strings.Join(merged.changes(tt.old), "; "); got != tt.want {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
		if again := tt.now.merge(merged).changes(merged); len(again) != 0 {
			t.Errorf("%s: said again: %q", name, again)
		}
	}
}

// FuzzTerms feeds what a CA may say in a directory and a challenge through to the record
// that somebody would publish.
func FuzzTerms(f *testing.F) {
	f.Add([]byte(`{"issuerDomainNames":["a.example"],"caaIdentities":["a.example"],"accountHashPrefix":"https://ca.example/h/"}`), []byte(`{"challenges":[{"type":"dns-persist-01","url":"u","issuerDomainNames":["a.example"]}]}`))
	f.Add([]byte(`{"accountHashPrefix":"urn:x;y"}`), []byte(`{"challenges":[{"type":"dns-persist-01","url":"u","issuer-domain-names":["a.example;","b.example"],"accounturi":"x"}]}`))
	f.Add([]byte(`{"issuerDomainNames":["a.example"],"accountHashPrefix":"https://ca.example/$(id)/"}`), []byte(`{"challenges":[{"type":"dns-persist-01","url":"u","issuerDomainNames":["a.example"]}]}`))
	f.Add([]byte(`{"issuerDomainNames":{}}`), []byte(`{"challenges":[{"type":"dns-persist-01","url":"u","issuerDomainNames":null,"accounturi":5}]}`))
	f.Fuzz(func(t *testing.T, meta, authz []byte) {
		d := &Directory{}
		if json.Unmarshal(meta, &d.Meta.directoryMeta) != nil {
			return
		}
		c := New(Config{URL: "https://ca.example/dir", Dialect: DialectAuto}).At(d)
		c.wire.note(authz)
		for _, m := range c.wire.members {
			if m.Names != nil && m.Deployed == nil && c.prefix() == "" {
				continue // the directory would be read again
			}
			terms, err := c.challengeTerms(t.Context(), m, "example.com", testIdentity)
			if err != nil {
				continue
			}
			value := record.Value{IssuerDomainName: terms.Names[0], AccountURI: testIdentity.URI, Wildcard: true}
			if terms.Dialect == record.DialectHashed {
				if value.AccountURI = terms.hashedURI("example.com", testIdentity); value.AccountURI == "" {
					continue
				}
			}
			text := value.String()
			p, err := record.Parse(text)
			if err != nil || !p.Wildcard || strings.ContainsAny(text, "\n\t\"'\\$`") || !record.Evaluate([]string{text}, terms.Requirement("*.example.com", testIdentity), time.Now()).Good() {
				t.Fatalf("%q is asked for: %v, %+v", text, err, p)
			}
		}
	})
}
