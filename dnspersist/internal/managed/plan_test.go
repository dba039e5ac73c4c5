package managed

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/caddyserver/certmagic"
)

// The index finds what a look at all policies in their order finds.
func TestServing(t *testing.T) {
	labels := []string{"*", "a", "B", "c", ""}
	random := func() string {
		name := labels[rand.N(4)]
		for range rand.N(4) {
			name += "." + labels[rand.N(len(labels))]
		}
		return name
	}
	found := 0
	for range 2000 {
		var p Plan[int]
		for n := range rand.N(6) {
			one := Policy[int]{Issuers: []int{n}}
			for range rand.N(3) {
				one.Subjects = append(one.Subjects, random())
			}
			p.policies = append(p.policies, one)
		}
		p = p.indexed()
		for range 10 {
			name := random()
			want := slices.IndexFunc(p.policies, func(one Policy[int]) bool {
				return len(one.Subjects) == 0 || slices.ContainsFunc(one.Subjects, func(s string) bool { return certmagic.MatchWildcard(name, s) })
			})
			got := p.Serving(name)
			if (len(got) > 0) != (want >= 0) || len(got) > 0 && got[0] != want {
				t.Fatalf("%q in %v: %v", name, p.policies, got)
			}
			found += len(got)
		}
	}
	if found < 1000 {
		t.Errorf("only %d names have a policy", found)
	}
}

func BenchmarkServing(b *testing.B) {
	var p Plan[int]
	for i := range 10000 {
		p.policies = append(p.policies, Policy[int]{Subjects: []string{fmt.Sprintf("site%d.example.com", i)}})
	}
	p = p.indexed()
	for b.Loop() {
		p.Serving("site9999.example.com")
	}
}

func TestBelow(t *testing.T) {
	p := Plan[string]{
		policies: []Policy[string]{
			{Subjects: []string{"*.sub.example.com", "plain.example.com"}, Issuers: []string{"a"}},
			{Subjects: []string{"*.both.example.com"}, Issuers: []string{"a", "b"}},
			{Subjects: []string{"*.other.example.com"}}, // another issuer's
			{Issuers: []string{"b"}},
		},
		names: []string{"*.sub.example.com", "*.Site.example.com", "*.other.example.com", "www.example.com", "*"},
	}.indexed()
	for base, want := range map[string][]string{
		"both.example.com": {"a", "b"}, "sub.example.com": {"a"}, "site.example.com": {"b"}, "other.example.com": nil, "plain.example.com": nil,
	} {
		got := slices.Compact(slices.Sorted(slices.Values(p.Below(base))))
		if !slices.Equal(got, want) {
			t.Errorf("below %s: %q, want %q", base, got, want)
		}
	}
}

// What no Caddy would load is no reason to panic.
func TestOfflineOfNothing(t *testing.T) {
	for _, config := range []string{`{}`, `null`, `{"apps":{"tls":{"automation":{"policies":[null]}},"http":{"servers":{"a":null,"b":{"routes":[{"match":[null,{"host":7}]}]}}}}}`} {
		c, err := ReadConfig([]byte(config))
		if err != nil {
			t.Errorf("%s: %v", config, err)
			continue
		}
		p, err := Offline(c, func(PolicyConfig) ([]int, error) { return nil, nil })
		if err != nil || len(p.Names()) > 0 {
			t.Errorf("%s: %v, %v", config, p.Names(), err)
		}
	}
}
