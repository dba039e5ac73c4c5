package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
	"github.com/dnspersist/caddy-dnspersist/internal/e2e/harness"
)

// The dialect option beats what the CA shows.
func TestPinnedDialect(t *testing.T) {
	e := withDraft(t, harness.Options{}, "02+01")
	name := e.Name("pinned")
	e.Load(e.Global() + e.Site(name, e.Block("dialect account_url")))
	value := e.Asked(name)
	if want := e.Value(e.CA.Accounts()[0], false); value != want {
		t.Errorf("the record asked for is %q, want %q", value, want)
	}
	e.Publish(name, value)
	e.WaitTrusted(name, harness.Soon)
	e.AssertClean(1)
}

func TestPinnedHashAtADeployedCA(t *testing.T) {
	e := harness.New(t, harness.Options{})
	name := e.Name("nohash")
	e.Load(e.Global() + e.Site(name, e.Block("dialect hashed")))
	e.Eventually(harness.Soon, "the error", func() error {
		for _, l := range e.Logs("could not get certificate from issuer") {
			if strings.Contains(fmt.Sprint(l["error"]), "remove the dialect option") {
				return nil
			}
		}
		return fmt.Errorf("no entry")
	})
}

// A CA that breaks the rules of draft -02 gets no record and no validation; the error says
// whose fault it is and which name is wrong.
func TestMalformedChallenge(t *testing.T) {
	for name, tt := range map[string]struct {
		directory, challenge func(map[string]any)
		want                 string
	}{
		"a name of the directory is missing": {
			func(meta map[string]any) {
				meta["issuerDomainNames"] = []string{harness.IssuerName, "promised.example"}
			},
			nil, "lacks the issuer domain name promised.example",
		},
		"a name is not among the CAA identities": {
			nil, func(c map[string]any) { c["issuerDomainNames"] = []string{harness.IssuerName, "other.example"} },
			`"other.example" is not among the directory's caaIdentities`,
		},
		"no names": {nil, func(c map[string]any) { c["issuerDomainNames"] = []string{} }, "names 0 issuer domain names"},
		"eleven names": {nil, func(c map[string]any) {
			c["issuerDomainNames"] = strings.Split(strings.Repeat("a.example ", 11), " ")[:11]
		}, "names 11 issuer domain names"},
		"no name conforms": {nil, func(c map[string]any) { c["issuerDomainNames"] = []string{"CA.example", "ca.example."} }, "none of its 2 issuer domain names conforms"},
	} {
		t.Run(name, func(t *testing.T) {
			e := withDraft(t, harness.Options{}, "02")
			if tt.directory != nil {
				e.CA.MutateDirectory(func(d map[string]any) { tt.directory(d["meta"].(map[string]any)) })
			}
			if tt.challenge != nil {
				e.CA.MutateAuthz(func(a map[string]any) {
					for _, c := range a["challenges"].([]any) {
						if c := c.(map[string]any); c["type"] == "dns-persist-01" {
							tt.challenge(c)
						}
					}
				})
			}
			site := e.Name("bad")
			e.Publish(site, hashedValue(e.CA, e.Bind(), site, false))
			e.Load(e.Global() + e.Site(site, e.Block()))
			e.Eventually(harness.Soon, "the error", func() error {
				for _, l := range e.Logs("could not get certificate from issuer") {
					if text := fmt.Sprint(l["error"]); strings.Contains(text, tt.want) && strings.Contains(text, "the CA's fault") {
						return nil
					}
				}
				return fmt.Errorf("no entry")
			})
			if n := e.CA.Count("challenge"); n != 0 {
				t.Errorf("%d challenges were posted", n)
			}
		})
	}
}

// A single name that does not conform is left out; the others count.
func TestNonconformingNameIsLeftOut(t *testing.T) {
	e := withDraft(t, harness.Options{}, "01")
	e.CA.MutateAuthz(func(a map[string]any) {
		for _, c := range a["challenges"].([]any) {
			if c := c.(map[string]any); c["type"] == "dns-persist-01" {
				c["issuer-domain-names"] = []string{"evil.example; policy=wildcard", "UPPER.example", harness.IssuerName}
			}
		}
	})
	name := e.Name("left")
	e.Load(e.Global() + e.Site(name, e.Block()))
	value := e.Asked(name)
	if want := e.Value(e.CA.Accounts()[0], false); value != want {
		t.Errorf("the record asked for is %q, want %q", value, want)
	}
	e.Publish(name, value)
	e.WaitTrusted(name, harness.Soon)
	e.AssertClean(1)
}

// A record that ends before the third renewal from now is announced, whatever its date is
// it is used.
func TestRecordThatEnds(t *testing.T) {
	e := harness.New(t, harness.Options{Lifetime: 2 * time.Hour})
	account := e.Bind()
	soon, late := e.Name("soon"), e.Name("late")
	until := func(d time.Duration) string {
		return record.Value{IssuerDomainName: harness.IssuerName, AccountURI: account, PersistUntil: time.Now().Add(d)}.String()
	}
	e.Publish(soon, until(2*time.Hour))
	e.Publish(late, until(5*time.Hour))
	e.Load(e.Global() + e.Site(soon, e.Block()) + e.Site(late, e.Block()))
	e.WaitTrusted(soon, harness.Soon)
	e.WaitTrusted(late, harness.Soon)
	logs := e.Logs("the record ends soon")
	if len(logs) != 1 || logs[0]["domain"] != soon || logs[0]["value"] != e.Value(account, false) || fmt.Sprint(logs[0]["renewals_left"]) != "1" {
		t.Errorf("announced: %v; want the record of %s", logs, soon)
	}
	e.AssertClean(2)
}
