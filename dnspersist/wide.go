package dnspersist

import (
	"strings"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

// wildcards returns the names below which a wildcard is managed with a CA: by the subjects of
// its policies, and by the names that they serve.
func (p plan) wildcards(ca string) map[string]bool {
	bases := make(map[string]bool)
	add := func(policy planned, name string) {
		normal, err := record.Normalize(name)
		if err != nil || !record.IsWildcard(normal) {
			return
		}
		for _, iss := range policy.issuers {
			if iss.CA == ca {
				bases[record.Base(normal)] = true
			}
		}
	}
	for _, policy := range p.policies {
		for _, subject := range policy.subjects {
			add(policy, subject)
		}
	}
	for _, n := range p.names {
		if policy, ok := p.policyFor(n); ok {
			add(policy, n)
		}
	}
	return bases
}

// wildcardManaged is the acmepersist.Config.Wildcard of an issuer that Caddy runs. All apps are
// provisioned when it is first called.
func (iss *Issuer) wildcardManaged(validationName string) bool {
	a := iss.rt.app
	a.mu.Lock()
	bases, known := a.wildcards[iss.CA]
	a.mu.Unlock()
	if !known {
		bases = a.livePlan().wildcards(iss.CA)
		a.mu.Lock()
		if a.wildcards == nil {
			a.wildcards = make(map[string]map[string]bool)
		}
		a.wildcards[iss.CA] = bases
		a.mu.Unlock()
	}
	return bases[strings.TrimPrefix(validationName, record.Label+".")]
}
