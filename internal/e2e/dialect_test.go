package e2e

// Certificates at CAs of each draft of dns-persist-01.

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
	"github.com/dnspersist/caddy-dnspersist/internal/e2e/harness"
	"github.com/dnspersist/caddy-dnspersist/internal/lab"
	"github.com/dnspersist/caddy-dnspersist/internal/tuning"
)

// withDraft makes an environment whose CA speaks a dialect.
func withDraft(t *testing.T, o harness.Options, word string) *harness.Env {
	t.Helper()
	d, err := lab.ParseDialect(word)
	if err != nil {
		t.Fatal(err)
	}
	o.CA.Dialect = d
	return harness.New(t, o)
}

// hashedValue is the record's value by the lab's own computation.
func hashedValue(ca *lab.CA, account, domain string, wildcard bool) string {
	return record.Value{IssuerDomainName: harness.IssuerName, AccountURI: ca.HashedURI(account, domain), Wildcard: wildcard}.String()
}

// In every dialect the record that Caddy asks for is the one that the CA accepts: for a
// plain name, an apex with its wildcard, and behind a CNAME, where the hash is over the
// name that is validated.
func TestEveryDialect(t *testing.T) {
	for _, word := range []string{"00", "01", "02", "02+01", "mixed"} {
		t.Run(word, func(t *testing.T) {
			e := withDraft(t, harness.Options{}, word)
			plain, apex, elsewhere := e.Name("plain"), e.Name("apex"), e.Name("cname")
			e.DNS.AddZone("tenants.test")
			e.DNS.SetRR(0, "_validation-persist."+elsewhere+". CNAME t1.tenants.test.")
			e.Load(e.Global() + e.Site(plain, e.Block()) + e.Site(apex+", *."+apex, e.Block()) + e.Site(elsewhere, e.Block()))
			for _, name := range []string{plain, apex, elsewhere} {
				value := e.Asked(name)
				want := e.Value(e.CA.Accounts()[0], name == apex)
				if strings.HasPrefix(word, "02") || word == "mixed" {
					want = hashedValue(e.CA, e.CA.Accounts()[0], name, name == apex)
				}
				if value != want {
					t.Errorf("the record asked for at %s is %q, want %q", name, value, want)
				}
				if name == elsewhere {
					at := slices.IndexFunc(e.Logs("publish this TXT record once"), func(l map[string]any) bool {
						return l["alias_of"] == "_validation-persist."+name && l["name"] == "t1.tenants.test"
					})
					if at < 0 {
						t.Error("it was not said that the record goes where the CNAME leads")
					}
					e.DNS.SetTXT(0, "t1.tenants.test", value)
				} else {
					e.Publish(name, value)
				}
			}
			for _, name := range []string{plain, apex, "any." + apex, elsewhere} {
				e.WaitTrusted(name, harness.Soon)
			}
			e.AssertClean(4)
		})
	}
}

// A CA of draft -02 says in its directory what a record needs: no order is made before the
// record stands.
func TestHashedRecordIsAskedForBeforeAnyOrder(t *testing.T) {
	e := withDraft(t, harness.Options{}, "02")
	name := e.Name("early")
	e.Load(e.Global() + e.Site(name, e.Block()))
	value := e.Asked(name)
	if n := e.CA.Count("new-order"); n != 0 {
		t.Errorf("%d orders before the record was published", n)
	}
	e.Publish(name, value)
	e.WaitTrusted(name, harness.Soon)
	e.AssertClean(1)
}

// One value for any domain is as good as one for the name, and is followed by one of the
// same kind where a wildcard needs the policy.
func TestValueForAnyDomain(t *testing.T) {
	e := withDraft(t, harness.Options{}, "02")
	account := e.Bind()
	one, two := e.Name("one"), e.Name("two")
	e.Publish(one, hashedValue(e.CA, account, record.AnyDomain, false))
	e.Publish(two, hashedValue(e.CA, account, record.AnyDomain, false))
	e.Load(e.Global() + e.Site(one, e.Block()) + e.Site("*."+two, e.Block()))
	e.WaitTrusted(one, harness.Soon)
	if value, want := e.Asked(two), hashedValue(e.CA, account, record.AnyDomain, true); value != want {
		t.Errorf("the record asked for is %q, want %q", value, want)
	}
	e.Publish(two, hashedValue(e.CA, account, record.AnyDomain, true))
	e.WaitTrusted("x."+two, harness.Soon)
	e.AssertClean(2)
}

func TestTwoCAsInDifferentDialectsAtOneName(t *testing.T) {
	e := harness.New(t, harness.Options{})
	other := e.NewCA(harness.Options{CA: lab.CAConfig{Dialect: lab.Dialect{Draft: "02"}, IssuerNames: []string{"hashed.example"}}})
	name := e.Name("both")
	e.Load(e.Global() + e.Site(name, e.Block()) + e.Site("*."+name, e.BlockFor(other)))
	var values []string
	e.Eventually(harness.Soon, "both records to be asked for", func() error {
		values = nil
		for _, l := range e.Logs("publish this TXT record once") {
			values = append(values, fmt.Sprint(l["value"]))
		}
		return harness.Want(len(values), 2)
	})
	e.Publish(name, values...)
	e.WaitTrusted(name, harness.Soon)
	e.Eventually(harness.Soon, "the other CA's certificate", func() error { return e.TrustedBy(other, "x."+name) })
	e.AssertClean(1)
	e.AssertCleanFor(other, 1)
}

// A CA that moves from -01 to -02 between issuance and renewal is noticed on the day, the
// new record is logged with the published one and the time that is left, and once it is
// published the renewal goes through with no failed validation.
func TestMoveToHashedRecords(t *testing.T) {
	e := withDraft(t, harness.Options{
		Lifetime: 60 * time.Second,
		Tuning:   func(v *tuning.Values) { v.ReadDirectory, v.LookAtNames = time.Second, time.Second },
	}, "01")
	// Pebble's renewal window may begin at once, and a renewal before the new record stands
	// is one that the CA refuses
	e.CA.MutateDirectory(func(d map[string]any) { delete(d, "renewalInfo") })
	account := e.Bind()
	name, wild := e.Name("move"), e.Name("wild")
	old := e.Value(account, false)
	e.Publish(name, old)
	e.Publish(wild, e.Value(account, true))
	e.Load(e.Global("renew_interval 1s") + e.Site(name, e.Block()) + e.Site("*."+wild, e.Block()))
	first := e.WaitTrusted(name, harness.Soon)
	firstWild := e.WaitTrusted("x."+wild, harness.Soon)
	// what the directory says is noted before it changes
	e.Eventually(harness.Soon, "a reading of the directory", func() error { return harness.AtLeast(e.CA.Count("directory"), 3) })
	if n := len(e.Logs("the CA has changed")); n != 0 {
		t.Errorf("a change was announced before there was one")
	}
	e.CA.SetDialect(lab.Dialect{Draft: "02"})

	const said = "publish this TXT record beside the published ones"
	e.Eventually(harness.Soon, "the announcement", func() error { return harness.Want(len(e.Logs(said)), 2) })
	want := map[string]string{
		"_validation-persist." + name: hashedValue(e.CA, account, name, false),
		"_validation-persist." + wild: hashedValue(e.CA, account, wild, true),
	}
	for _, l := range e.Logs(said) {
		if at := fmt.Sprint(l["name"]); l["value"] != want[at] {
			t.Errorf("announced at %s: %v, want %q", at, l["value"], want[at])
		}
		if fmt.Sprint(l["published_values"]) == "[]" || l["needed_by"] == nil || l["days_left"] == nil {
			t.Errorf("the announcement lacks the published values or the time that is left: %v", l)
		}
	}
	e.Publish(name, old, want["_validation-persist."+name])
	e.Publish(wild, e.Value(account, true), want["_validation-persist."+wild])
	e.Eventually(90*time.Second, "the renewals", func() error {
		for site, before := range map[string]string{name: first.SerialNumber.String(), "x." + wild: firstWild.SerialNumber.String()} {
			cert, err := e.Trusted(site)
			if err != nil {
				return err
			}
			if cert.SerialNumber.String() == before {
				return fmt.Errorf("%s has its first certificate", site)
			}
		}
		return nil
	})
	if failed := e.CA.FailedValidations(); len(failed) != 0 {
		t.Errorf("failed validations: %v", failed)
	}
	if n := len(e.Logs("the CA has changed")); n != 1 {
		t.Errorf("the change was announced %d times, want once", n)
	}
}

// A CA that shows -02 and still takes -01 records: the renewal goes through with the old
// record, and nobody has to do anything.
func TestOldRecordAtACAOfBothKinds(t *testing.T) {
	e := withDraft(t, harness.Options{Lifetime: 15 * time.Second}, "01")
	name := e.Name("stay")
	e.Publish(name, e.Value(e.Bind(), false))
	e.Load(e.Global("renew_interval 1s") + e.Site(name, e.Block()))
	first := e.WaitTrusted(name, harness.Soon)
	e.CA.SetDialect(lab.Dialect{Draft: "02", AcceptAccountURL: true})
	e.Eventually(harness.Soon, "the renewal", func() error {
		cert, err := e.Trusted(name)
		if err == nil && cert.SerialNumber.Cmp(first.SerialNumber) == 0 {
			err = fmt.Errorf("it is the first certificate")
		}
		return err
	})
	if failed := e.CA.FailedValidations(); len(failed) != 0 {
		t.Errorf("failed validations: %v", failed)
	}
	if n := len(e.Logs("publish this TXT record once")); n != 0 {
		t.Errorf("%d records were asked for", n)
	}
}

// A CA that has moved and takes old records no more says no to one once; after that the
// new one is asked for, and nothing fails any more.
func TestOldRecordIsRefusedOnce(t *testing.T) {
	e := withDraft(t, harness.Options{}, "02")
	name := e.Name("refused")
	account := e.Bind()
	e.Publish(name, e.Value(account, false))
	e.Load(e.Global() + e.Site(name, e.Block()))
	e.Eventually(3*time.Minute, "the new record to be asked for", func() error { return harness.AtLeast(len(e.Logs("publish this TXT record once")), 1) })
	value := e.Asked(name)
	if want := hashedValue(e.CA, account, name, false); value != want {
		t.Errorf("the record asked for is %q, want %q", value, want)
	}
	e.Publish(name, e.Value(account, false), value)
	e.WaitTrusted(name, harness.Soon)
	if n := len(e.CA.FailedValidations()); n != 1 {
		t.Errorf("%d validations failed, want the one of the old record", n)
	}
}
