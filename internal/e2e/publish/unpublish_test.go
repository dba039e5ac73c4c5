//go:build unix

package publish

import (
	"slices"
	"strings"
	"testing"

	"github.com/dnspersist/caddy-dnspersist/dnspersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
	"github.com/dnspersist/caddy-dnspersist/internal/e2e/harness"
)

// What was written at the end of a CNAME is removed as elsewhere: exactly ours, and what others
// share is known to serve them.
func TestUnpublishDelegated(t *testing.T) {
	e, a := newEnv(t, options(0))
	zone := "certs." + e.Name("platform")
	e.DNS.AddZone(zone)
	one, two, alone := e.Name("one"), e.Name("two"), e.Name("alone")
	own := record.DelegationLabel(alone) + "." + zone
	a.set(own, foreign)
	alias(e, one, "shared."+zone)
	alias(e, two, "shared."+zone)
	alias(e, alone, own)
	site := e.Global() + e.Site(strings.Join([]string{one, two, alone}, ", "), e.Block(a.block(), "delegate_to "+zone+" own_labels"))
	e.Load(site)
	for _, n := range []string{one, two, alone} {
		e.WaitTrusted(n, harness.Soon)
	}
	e.Stop()

	config, err := harness.Adapt(site)
	if err != nil {
		t.Fatal(err)
	}
	off, err := dnspersist.Open(config)
	if err != nil {
		t.Fatal(err)
	}
	defer off.Close()
	checks, _, err := off.Checks(t.Context(), "", []string{one, two})
	if err != nil {
		t.Fatal(err)
	}
	for i, other := range []string{two, one} {
		others, more, err := checks[i].Shares(t.Context())
		if err != nil || more || !slices.Equal(others, []string{other}) || checks[i].Place() != "shared."+zone {
			t.Errorf("%s at %s shares with %q, %v, %v", checks[i].Name(), checks[i].Place(), others, more, err)
		}
	}
	left, err := off.Leftovers(t.Context(), "")
	if err != nil || len(left) != 0 {
		t.Errorf("%d leftovers, %v", len(left), err)
	}
	unpublish(t, site, alone)
	if got := a.at(own); !slices.Equal(got, []string{foreign}) {
		t.Errorf("at the label there are %q", got)
	}
	if got := a.at("shared." + zone); len(got) != 1 {
		t.Errorf("at the shared label there are %q", got)
	}
}
