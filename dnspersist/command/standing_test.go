package command

import (
	"testing"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

// A record without the policy does not stand for one that was asked for with it, whatever the
// names are; one with the policy serves both.
func TestStandsAlready(t *testing.T) {
	const account = "https://ca.example/1"
	value := func(wildcard bool) string {
		return record.Value{IssuerDomainName: "ca.example", AccountURI: account, Wildcard: wildcard}.String()
	}
	for _, test := range []struct {
		stands, wanted, want bool
		names                []string
	}{
		{false, true, false, []string{"a.example"}},
		{false, true, false, []string{"*.a.example", "a.example"}},
		{true, true, true, []string{"a.example"}},
		{true, false, true, []string{"a.example"}},
		{false, false, true, []string{"a.example"}},
	} {
		w := acmepersist.Wanted{Identifiers: test.names, IssuerDomainName: "ca.example", AccountURI: account, Value: value(test.wanted)}
		// in other words, or there would be nothing to evaluate
		if got := standsAlready([]string{value(test.stands) + "; x=y"}, w); got != test.want {
			t.Errorf("%+v: %v", test, got)
		}
	}
}
