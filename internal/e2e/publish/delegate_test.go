package publish

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

// alias delegates a validation name as its owner would.
func alias(e *harness.Env, name, target string) {
	e.DNS.ClearName(0, vname(name))
	e.DNS.SetRR(0, fmt.Sprintf("%s. 300 IN CNAME %s.", vname(name), target))
}

// delegated waits for the log to say what the owner of a name has to set, and returns it.
func delegated(e *harness.Env, name string) (target string) {
	e.T.Helper()
	e.Eventually(harness.Soon, "the CNAME of "+name+" to be asked for", func() error {
		for _, l := range e.Logs("delegate the validation name once by the CNAME record") {
			if l["cname_name"] == vname(name) {
				target = strings.TrimSuffix(fmt.Sprint(l["cname_value"]), ".")
				return nil
			}
		}
		return fmt.Errorf("no entry")
	})
	return target
}

// Tenants set one CNAME: before the start, after being told, or to a label of their own. What
// is at its end is written and kept, and a change of the dialect touches no zone of theirs.
func TestDelegation(t *testing.T) {
	o := options(12 * time.Second)
	tune := o.Tuning
	o.Tuning = func(v *tuning.Values) {
		tune(v)
		v.Retry = time.Minute // it is what DNS shows that has a domain tried again
	}
	e, a := newEnv(t, o)
	zone := "certs." + e.Name("platform")
	e.DNS.AddZone(zone)
	early, late, own := e.Name("early"), e.Name("late"), e.Name("own")
	alias(e, early, record.DelegationLabel(early)+"."+zone)
	e.Load(e.Global("renew_interval 1s") + e.Site(strings.Join([]string{early, late, own}, ", "), e.Block(a.block(), "delegate_to "+zone+" own_labels")))

	targets := map[string]string{early: record.DelegationLabel(early) + "." + zone, late: delegated(e, late), own: "customer-3." + zone}
	e.WaitTrusted(early, harness.Soon)
	if want := record.DelegationLabel(late) + "." + zone; targets[late] != want {
		t.Fatalf("asked for a CNAME to %s, want %s", targets[late], want)
	}
	if e.StoredCertificate(late) || e.StoredCertificate(own) {
		t.Error("a certificate without the owner's CNAME")
	}
	alias(e, late, targets[late])
	alias(e, own, targets[own])
	for _, n := range []string{late, own} {
		e.WaitTrusted(n, harness.Soon)
	}

	account := e.CA.Orders()[0].Account
	for n, target := range targets {
		if got := a.at(target); len(got) != 1 || !strings.Contains(got[0], "accounturi="+account) {
			t.Errorf("at %s for %s there is %q", target, n, got)
		}
	}
	e.CA.SetDialect(lab.Dialect{Draft: "02", AcceptAccountURL: true})
	for n, target := range targets {
		e.Eventually(time.Minute, "the hashed value of "+n+" alone", func() error {
			if got := a.at(target); len(got) != 1 || !strings.Contains(got[0], e.CA.HashedURI(account, n)) {
				return fmt.Errorf("at %s there is %q", target, got)
			}
			return nil
		})
		renewed(e, n, e.WaitTrusted(n, harness.Soon))
		if a.count("append", vname(n)) > 0 {
			t.Errorf("the zone of the tenant %s was written", n)
		}
	}
	if n := len(e.CA.FailedValidations()); n != 0 {
		t.Errorf("%d failed validations", n)
	}
	noSecret(e)
}

// Names that share a target have one value: with the policy that the widest needs, and in
// draft -02 the one for any domain.
func TestSharedTarget(t *testing.T) {
	for draft, any := range map[string]bool{"01": false, "02": true} {
		for option, target := range map[string]string{"delegate_to": "shared", "dns_challenge_override_domain": ""} {
			t.Run(draft+" "+option, func(t *testing.T) {
				o := options(12 * time.Second)
				o.CA.Dialect = lab.Dialect{Draft: draft}
				e, a := newEnv(t, o)
				zone, ownLabels := "certs."+e.Name("platform"), ""
				if target == "" {
					target = zone
				} else {
					ownLabels = " own_labels"
					target += "." + zone
				}
				e.DNS.AddZone(zone)
				one, two := e.Name("one"), e.Name("two")
				alias(e, one, target)
				alias(e, two, target)
				site := func(names string) string {
					return e.Global("renew_interval 1s") + e.Site(names, e.Block(a.block(), option+" "+zone+ownLabels))
				}
				e.Load(site(one))
				e.WaitTrusted(one, harness.Soon)
				e.Load(site(one + ", " + two + ", *." + two))
				e.WaitTrusted(two, harness.Soon)
				e.WaitTrusted("x."+two, harness.Soon)
				uri := e.CA.Orders()[0].Account
				if any {
					uri = e.CA.HashedURI(uri, record.AnyDomain)
				}
				e.Eventually(time.Minute, "one value for both", func() error {
					want := []string{harness.IssuerName + "; accounturi=" + uri + "; policy=wildcard"}
					if got := a.at(target); !slices.Equal(got, want) {
						return fmt.Errorf("there is %q, want %q", got, want)
					}
					return nil
				})
				renewed(e, one, e.WaitTrusted(one, harness.Soon))
				if n := len(e.CA.FailedValidations()); n != 0 {
					t.Errorf("%d failed validations", n)
				}
			})
		}
	}
}

// A CNAME that leads to somebody else is named, and nothing is written there.
func TestForeignAlias(t *testing.T) {
	e, a := newEnv(t, options(0))
	zone := "certs." + e.Name("platform")
	e.DNS.AddZone(zone)
	name := e.Name("astray")
	alias(e, name, "elsewhere."+e.Name("other"))
	e.Load(e.Global() + e.Site(name, e.Block(a.block(), "delegate_to "+zone)))
	e.Eventually(harness.Soon, "the alias to be named", func() error {
		for _, l := range e.Logs("the record could not be published") {
			if said := fmt.Sprint(l["error"]); strings.Contains(said, "is an alias (CNAME) of elsewhere.") && strings.Contains(said, record.DelegationLabel(name)+"."+zone) {
				return nil
			}
		}
		return fmt.Errorf("no entry")
	})
	// its owner corrects it
	alias(e, name, record.DelegationLabel(name)+"."+zone)
	e.WaitTrusted(name, harness.Soon)
	if n := a.count("append", record.DelegationLabel(name)+"."+zone); n != 1 {
		t.Errorf("%d writes at the target, want 1", n)
	}
}
