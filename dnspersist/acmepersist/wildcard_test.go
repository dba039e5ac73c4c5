package acmepersist_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
)

// publishHere has an issuer publish at the validation names themselves.
func publishHere(c *acmepersist.Config) { c.Delegation = nil }

// A wildcard CNAME answers for the validation name: an exact record takes its place, so that is
// where one is written, and the certificate follows.
func TestWildcardAliasDoesNotMoveTheRecord(t *testing.T) {
	t.Parallel()
	n := newTenants(t, publishHere)
	n.dns.AddZone("apex.test")
	n.dns.AddZone("ex.test")
	n.dns.SetRR(0, "*.apex.test. 300 IN CNAME ex.test.")
	n.dns.SetRR(0, "apex.test. 300 IN A 192.0.2.80")
	checks, err := n.Checks(t.Context(), []string{"apex.test"})
	if err != nil {
		t.Fatal(err)
	}
	if c := checks[0].Look(t.Context(), true); c.State != acmepersist.StateMissing || !strings.HasPrefix(c.Do, "publish a TXT record at _validation-persist.apex.test with this value: ") {
		t.Errorf("before: %s, %q", c.State, c.Do)
	}
	if err := n.issueFor(t.Context(), "apex.test"); err != nil {
		t.Fatal(err)
	}
	if n.provider.written("_validation-persist.apex.test") != 1 || len(n.provider.writes) != 1 {
		t.Errorf("written at %v", n.provider.writes)
	}
	for name, want := range map[string]string{"apex.test": "192.0.2.80", "other.apex.test": "ex.test."} {
		if got := n.answer(name, dns.TypeA); !slices.Contains(got, want) {
			t.Errorf("%s has %v, want %s", name, got, want)
		}
	}
	checks, err = n.Checks(t.Context(), []string{"apex.test"})
	if err != nil {
		t.Fatal(err)
	}
	if c := checks[0].Look(t.Context(), false); c.State != acmepersist.StateGood {
		t.Errorf("after: %s, %s", c.State, c.Do)
	}
}

// A host that lives from a wildcard keeps its address: nothing is written below it, and it is said
// what to add first, until that is there or it is allowed.
func TestWildcardsHostKeepsItsAddress(t *testing.T) {
	t.Parallel()
	for _, record := range []string{"CNAME box.dyn.test.", "A 192.0.2.80"} {
		n := newTenants(t, publishHere)
		n.dns.AddZone("home.test")
		n.dns.AddZone("dyn.test")
		n.dns.SetRR(0, "*.home.test. 300 IN "+record)
		first := "first add nas.home.test. 300 IN " + record
		has := strings.Fields(record)[1]

		err := n.issueFor(t.Context(), "nas.home.test")
		var shadowing *acmepersist.ShadowingError
		if !errors.As(err, &shadowing) || !strings.Contains(err.Error(), first) || !strings.Contains(err.Error(), "allow_shadowing") {
			t.Errorf("%s: %v", record, err)
		}
		if got := n.answer("nas.home.test", dns.TypeA); !slices.Contains(got, has) || len(n.provider.writes) > 0 {
			t.Errorf("%s: the host has %v, written at %v", record, got, n.provider.writes)
		}
		checks, err := n.Checks(t.Context(), []string{"nas.home.test"})
		if err != nil {
			t.Fatal(err)
		}
		for _, thorough := range []bool{false, true} {
			c := checks[0].Look(t.Context(), thorough)
			if c.State != acmepersist.StateMissing || !strings.Contains(c.Do, first+"; then publish a TXT record at _validation-persist.nas.home.test with this value: ") ||
				!slices.ContainsFunc(c.Diagnostics, func(d propagation.Diagnostic) bool { return d.Code == propagation.CodeWildcardBreaks }) {
				t.Errorf("%s: check: %s, %q, %+v", record, c.State, c.Do, c.Diagnostics)
			}
		}

		// its owner does what is said
		n.dns.SetRR(0, "nas.home.test. 300 IN "+record)
		if _, err := checks[0].Publish(t.Context(), checks[0].Configured()); err != nil {
			t.Fatalf("%s: with a record of its own: %v", record, err)
		}
		if got := n.answer("nas.home.test", dns.TypeA); !slices.Contains(got, has) {
			t.Errorf("%s: the host has %v", record, got)
		}
		if got := n.answer("other.home.test", dns.TypeA); !slices.Contains(got, has) {
			t.Errorf("%s: another host has %v", record, got)
		}

		// another one is written for all the same
		allowed := *checks[0].Configured()
		allowed.AllowShadowing = true
		checks, err = n.Checks(t.Context(), []string{"tv.home.test"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := checks[0].Publish(t.Context(), &allowed); err != nil {
			t.Errorf("%s: allowed: %v", record, err)
		}
	}
}

// A resolver that takes a name for a zone of its own does not have us write to it.
func TestZoneOfAWriteIsItsServers(t *testing.T) {
	t.Parallel()
	n := newTenants(t, publishHere)
	checks, err := n.Checks(t.Context(), []string{"new.example.test"})
	if err != nil {
		t.Fatal(err)
	}
	shown := propagation.Shown{Name: "_validation-persist.new.example.test", Zone: "new.example.test", Servers: []propagation.ServerReport{
		{Zone: "new.example.test", Addr: n.dns.Address(1) + ":53", Verdict: propagation.VerdictNo},
	}}
	if err := checks[0].Checker.ConfirmZone(t.Context(), shown); err == nil || !strings.Contains(err.Error(), "has it in the zone example.test") {
		t.Errorf("a wrong zone: %v", err)
	}
	shown.Zone, shown.Servers[0].Zone = "example.test", "example.test"
	if err := checks[0].Checker.ConfirmZone(t.Context(), shown); err != nil {
		t.Error(err)
	}
}
