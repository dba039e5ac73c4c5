package dnspersist

import (
	"maps"
	"slices"
	"testing"

	"github.com/caddyserver/caddy/v2/modules/caddytls"
)

func TestWildcards(t *testing.T) {
	at := func(ca string) *Issuer {
		return &Issuer{ACMEIssuer: &caddytls.ACMEIssuer{CA: ca}}
	}
	a, b := at("a"), at("b")
	p := plan{
		policies: []planned{
			{subjects: []string{"*.sub.example.com", "plain.example.com"}, issuers: []*Issuer{a}},
			{subjects: []string{"*.both.example.com"}, issuers: []*Issuer{a, b}},
			{subjects: []string{"*.other.example.com"}}, // another issuer's
			{issuers: []*Issuer{b}},
		},
		names: []string{"*.sub.example.com", "*.Site.example.com", "*.other.example.com", "www.example.com", "*"},
	}.indexed()
	for ca, want := range map[string][]string{
		"a": {"both.example.com", "sub.example.com"},
		"b": {"both.example.com", "site.example.com"},
		"c": nil,
	} {
		if got := slices.Sorted(maps.Keys(p.wildcards(ca))); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", ca, got, want)
		}
	}
}
