package dnspersist

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/caddyserver/certmagic"
)

// The index finds what a look at all policies in their order finds.
func TestPlanIndex(t *testing.T) {
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
		var p plan
		for range rand.N(6) {
			var one planned
			for range rand.N(3) {
				one.subjects = append(one.subjects, random())
			}
			one.issuers = []*Issuer{new(Issuer)} // to tell it from others
			p.policies = append(p.policies, one)
		}
		p = p.indexed()
		for range 10 {
			name := random()
			want := slices.IndexFunc(p.policies, func(one planned) bool {
				return len(one.subjects) == 0 || slices.ContainsFunc(one.subjects, func(s string) bool { return certmagic.MatchWildcard(name, s) })
			})
			got, ok := p.policyFor(name)
			if ok != (want >= 0) || ok && got.issuers[0] != p.policies[want].issuers[0] {
				t.Fatalf("%q in %v: %v", name, p.policies, got)
			}
			if ok {
				found++
			}
		}
	}
	if found < 1000 {
		t.Errorf("only %d names have a policy", found)
	}
}

func BenchmarkPolicyFor(b *testing.B) {
	var p plan
	for i := range 10000 {
		p.policies = append(p.policies, planned{subjects: []string{fmt.Sprintf("site%d.example.com", i)}})
	}
	p = p.indexed()
	for b.Loop() {
		p.policyFor("site9999.example.com")
	}
}
