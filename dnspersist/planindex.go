package dnspersist

import (
	"slices"
	"strings"
)

// planIndex finds the policy of a name without a look at all of them: a configuration may have
// one for each of thousands of sites.
type planIndex struct {
	bySubject map[string]int // the first policy with the subject
	all       int            // the first without subjects, -1 if there is none
}

// indexed prepares policyFor. It writes all names in one way: those of certificates.automate
// Caddy takes as they are, and a placeholder may stand for any.
func (p plan) indexed() plan {
	p.names = asciiAll(p.names)
	forced := make(map[string]bool, len(p.forced))
	for n := range p.forced {
		forced[asciiName(n)] = true
	}
	p.forced = forced
	p.identity.subjects = asciiAll(p.identity.subjects)
	x := &planIndex{bySubject: make(map[string]int), all: -1}
	for i, policy := range p.policies {
		if len(policy.subjects) == 0 && x.all < 0 {
			x.all = i
		}
		for _, s := range policy.subjects {
			s = asciiName(s)
			if _, ok := x.bySubject[s]; !ok {
				x.bySubject[s] = i
			}
		}
	}
	p.index = x
	return p
}

// policyFor returns the policy that Caddy uses for a name: the first whose subjects match, and
// one without subjects matches all. A subject matches as for certmagic.MatchWildcard.
func (p plan) policyFor(name string) (planned, bool) {
	first := p.index.all
	try := func(subject string) {
		if i, ok := p.index.bySubject[subject]; ok && (first < 0 || i < first) {
			first = i
		}
	}
	name = asciiName(name)
	try(name)
	labels := strings.Split(name, ".")
	for i := range labels {
		if labels[i] == "" {
			continue
		}
		labels[i] = "*"
		try(strings.Join(labels, "."))
	}
	isIdentity := slices.Contains(p.identity.subjects, name)
	switch {
	case first >= 0 && (!isIdentity || len(p.policies[first].issuers) > 0):
		return p.policies[first], true
	case isIdentity:
		return p.identity, true
	case first >= 0:
		return p.policies[first], true
	}
	return planned{}, false
}
