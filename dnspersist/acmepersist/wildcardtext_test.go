package acmepersist_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
)

// A wildcard's texts are not published at the name: they neither keep from heeding the wildcard's
// host, nor are they written at the name, as if a provider had lost them.
func TestWildcardTextIsNobodysAtTheName(t *testing.T) {
	t.Parallel()
	n := newTenants(t, publishHere)
	n.dns.AddZone("home.test")
	n.dns.SetRR(0, "*.home.test. 300 IN TXT \"v=spf1 -all\"")
	n.dns.SetRR(0, "*.home.test. 300 IN A 192.0.2.80")

	var shadowing *acmepersist.ShadowingError
	if err := n.issueFor(t.Context(), "nas.home.test"); !errors.As(err, &shadowing) {
		t.Errorf("nothing was said of the host's address: %v", err)
	}
	if got := n.answer("nas.home.test", dns.TypeA); !slices.Contains(got, "192.0.2.80") || len(n.provider.writes) > 0 {
		t.Errorf("the host has %v, written at %v", got, n.provider.writes)
	}
	checks, err := n.Checks(t.Context(), []string{"nas.home.test"})
	if err != nil {
		t.Fatal(err)
	}
	for _, thorough := range []bool{false, true} {
		c := checks[0].Look(t.Context(), thorough)
		if c.State != acmepersist.StateMissing || !strings.Contains(c.Do, "first add nas.home.test. 300 IN A 192.0.2.80; then publish a TXT record at _validation-persist.nas.home.test with this value: ") {
			t.Errorf("check: %s, %q", c.State, c.Do)
		}
	}
	n.dns.SetRR(0, "nas.home.test. 300 IN A 192.0.2.80")
	done, err := checks[0].Publish(t.Context(), checks[0].Configured())
	if err != nil {
		t.Fatal(err)
	}
	if len(done.Restored) > 0 || n.provider.written("_validation-persist.nas.home.test") != 1 {
		t.Errorf("restored %q, written at %v", done.Restored, n.provider.writes)
	}
	if got := n.answer("_validation-persist.nas.home.test", dns.TypeTXT); len(got) != 1 {
		t.Errorf("the name has %q", got)
	}
}

// Nobody is asked to remove texts that are a wildcard's: an exact CNAME takes its place.
func TestWildcardTextKeepsNoCNAMEAway(t *testing.T) {
	t.Parallel()
	n := newTenants(t, nil)
	n.dns.AddZone("home.test")
	n.dns.SetRR(0, "*.home.test. 300 IN TXT \"v=spf1 -all\"")
	n.dns.SetRR(0, "nas.home.test. 300 IN A 192.0.2.80")
	n.dns.SetRR(0, "*.nas.home.test. 300 IN TXT \"v=spf1 -all\"")
	checks, err := n.Checks(t.Context(), []string{"nas.home.test"})
	if err != nil {
		t.Fatal(err)
	}
	c := checks[0].Look(t.Context(), false)
	if c.State != acmepersist.StateMissing || !strings.HasPrefix(c.Do, "let the owner of the domain set a CNAME record at _validation-persist.nas.home.test that leads to ") {
		t.Errorf("%s, %q", c.State, c.Do)
	}
}
