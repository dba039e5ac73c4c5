// Package managed works out which names a configuration manages certificates for, and which of our
// issuers serve them: of one that Caddy has loaded, and of one in JSON that no server runs. Without
// it, commands could not list "all names", a site's wildcard would not widen the record of its
// apex, and what was published for a name that has left the configuration would stay.
//
// Both kinds of plan have to be equal for the same configuration; the tests of the package
// dnspersist compare them.
package managed

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/certmagic"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

// Plan is which names a configuration manages, and which issuers serve them.
type Plan[I any] struct {
	policies []Policy[I]
	// names are those of the sites, as far as certificates are managed for them.
	names []string
	// forced are those of certificates.automate, managed although a wildcard covers them.
	forced []string
	// identity are the names of Caddy's admin endpoint, which has issuers of its own.
	identity Policy[I]

	// bySubject and catchAll find the policy of a name without a look at all of them: a
	// configuration may have one for each of thousands of sites. The first policy with a subject
	// counts, and catchAll is the first without subjects, -1 if there is none.
	bySubject map[string]int
	catchAll  int
	// wildcards are the issuers of wildcards, by the names above these.
	wildcards map[string][]I
}

// Policy is an automation policy: the names that it is for, all if there are none, and those of its
// issuers that are ours.
type Policy[I any] struct {
	Subjects []string
	Issuers  []I
}

// indexed prepares Serving and Below. It writes all names in one way: those of certificates.automate
// Caddy takes as they are, and a placeholder may stand for any.
func (p Plan[I]) indexed() Plan[I] {
	p.forced = asciiAll(p.forced)
	p.names = append(asciiAll(p.names), p.forced...)
	p.identity.Subjects = asciiAll(p.identity.Subjects)
	p.bySubject, p.catchAll, p.wildcards = make(map[string]int), -1, make(map[string][]I)
	for i, policy := range p.policies {
		if len(policy.Subjects) == 0 && p.catchAll < 0 {
			p.catchAll = i
		}
		for _, s := range policy.Subjects {
			s = ascii(s)
			if _, ok := p.bySubject[s]; !ok {
				p.bySubject[s] = i
			}
			p.addWildcard(policy.Issuers, s)
		}
	}
	for _, n := range p.names {
		if record.IsWildcard(n) {
			p.addWildcard(p.Serving(n), n)
		}
	}
	return p
}

// Issuers returns all issuers, in their order.
func (p Plan[I]) Issuers() []I {
	var all []I
	for _, policy := range p.policies {
		all = append(all, policy.Issuers...)
	}
	return append(all, p.identity.Issuers...)
}

// Subjects returns the subjects of all policies.
func (p Plan[I]) Subjects() []string {
	var all []string
	for _, policy := range p.policies {
		all = append(all, policy.Subjects...)
	}
	return all
}

// Names returns the names for which an issuer of the plan manages a certificate, sorted.
func (p Plan[I]) Names() []string {
	all, forced := setOf(p.names), setOf(p.forced)
	var names []string
	for n := range all {
		if len(p.Serving(n)) == 0 {
			continue
		}
		// a managed wildcard covers it, and Caddy asks for no certificate of its own
		if _, rest, ok := strings.Cut(n, "."); ok && !strings.HasPrefix(n, "*.") && all["*."+rest] && !forced[n] {
			continue
		}
		names = append(names, n)
	}
	if len(p.identity.Issuers) > 0 {
		names = append(names, p.identity.Subjects...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func setOf(names []string) map[string]bool {
	set := make(map[string]bool, len(names))
	for _, n := range names {
		set[n] = true
	}
	return set
}

// IsOthers reports whether the configuration has a name that another issuer than those of the plan serves.
func (p Plan[I]) IsOthers(name string) bool {
	name = ascii(name)
	return (slices.Contains(p.names, name) || slices.Contains(asciiAll(p.Subjects()), name)) && len(p.Serving(name)) == 0
}

// Serving returns the issuers of the policy that Caddy uses for a name: the first whose subjects
// match as for certmagic.MatchWildcard, and one without subjects matches all.
func (p Plan[I]) Serving(name string) []I {
	name = ascii(name)
	policy := p.policyOf(name)
	if slices.Contains(p.identity.Subjects, name) && (policy < 0 || len(p.policies[policy].Issuers) == 0) {
		return p.identity.Issuers
	}
	if policy < 0 {
		return nil
	}
	return p.policies[policy].Issuers
}

// policyOf is the number of the policy that Caddy uses for a name in ASCII, -1 if there is none.
func (p Plan[I]) policyOf(name string) int {
	first := p.catchAll
	try := func(subject string) {
		if i, ok := p.bySubject[subject]; ok && (first < 0 || i < first) {
			first = i
		}
	}
	try(name)
	labels := strings.Split(name, ".")
	for i := range labels {
		if labels[i] == "" {
			continue
		}
		labels[i] = "*"
		try(strings.Join(labels, "."))
	}
	return first
}

// Below returns the issuers that manage a wildcard below a name: by the subjects of their policies,
// and by the names that they serve.
func (p Plan[I]) Below(base string) []I { return p.wildcards[base] }

// addWildcard notes a name that issuers manage, if it is a wildcard.
func (p Plan[I]) addWildcard(issuers []I, name string) {
	if normal, err := record.Normalize(name); err == nil && record.IsWildcard(normal) {
		p.wildcards[record.Base(normal)] = append(p.wildcards[record.Base(normal)], issuers...)
	}
}

// site adds the sites' names, and the policies that Caddy makes for those that no policy names:
// its own CA serves what no public one does, and the local Tailscale the names of its network.
func (p Plan[I]) site(hosts []string) Plan[I] {
	named := setOf(p.Subjects())
	var internal, tailscale Policy[I]
	slices.Sort(hosts)
	for _, h := range slices.Compact(hosts) {
		switch {
		case named[h]:
		case strings.HasSuffix(strings.ToLower(h), ".ts.net"):
			tailscale.Subjects = append(tailscale.Subjects, h)
			continue
		case !certmagic.SubjectQualifiesForPublicCert(h):
			internal.Subjects = append(internal.Subjects, h)
		}
		p.names = append(p.names, h)
	}
	return p.before(internal).before(tailscale)
}

// before puts a policy where Caddy does: in front of the first that would serve one of its names
// as well, or that is more general.
func (p Plan[I]) before(policy Policy[I]) Plan[I] {
	if len(policy.Subjects) == 0 {
		return p
	}
	at := slices.IndexFunc(p.policies, func(other Policy[I]) bool {
		return len(other.Subjects) < len(policy.Subjects) || slices.ContainsFunc(policy.Subjects, func(subject string) bool {
			return slices.ContainsFunc(other.Subjects, func(s string) bool { return certmagic.MatchWildcard(subject, s) })
		})
	})
	if at < 0 {
		at = len(p.policies)
	}
	p.policies = slices.Insert(p.policies, at, policy)
	return p
}

// loadedFrom tells for which names a configuration that no server runs loads certificates, by
// certificates.load_files, load_pem and load_folders. Those of other loaders, and what this
// user cannot read, are not known: their names count as managed.
func loadedFrom(certificates map[string]json.RawMessage) func(name string) bool {
	names := make(map[string]bool)
	repl := caddy.NewReplacer()
	var pairs []struct {
		Certificate string `json:"certificate"`
	}
	if json.Unmarshal(certificates["load_files"], &pairs) == nil {
		for _, p := range pairs {
			addFile(names, repl.ReplaceKnown(p.Certificate, ""))
		}
	}
	pairs = nil
	if json.Unmarshal(certificates["load_pem"], &pairs) == nil {
		for _, p := range pairs {
			addPEM(names, []byte(repl.ReplaceKnown(p.Certificate, "")))
		}
	}
	var folders []string
	if json.Unmarshal(certificates["load_folders"], &folders) == nil {
		for _, folder := range folders {
			_ = filepath.WalkDir(repl.ReplaceKnown(folder, ""), func(path string, d fs.DirEntry, err error) error {
				if err == nil && !d.IsDir() && strings.HasSuffix(strings.ToLower(d.Name()), ".pem") {
					addFile(names, path)
				}
				return nil
			})
		}
	}
	return func(name string) bool {
		for loaded := range names {
			if certmagic.MatchWildcard(name, loaded) {
				return true
			}
		}
		return false
	}
}

func addFile(names map[string]bool, path string) {
	if data, err := os.ReadFile(path); err == nil {
		addPEM(names, data)
	}
}

// addPEM adds the names of the first certificate of a chain.
func addPEM(names map[string]bool, data []byte) {
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		if leaf, err := x509.ParseCertificate(block.Bytes); err == nil {
			names[strings.ToLower(leaf.Subject.CommonName)] = true
			for _, n := range leaf.DNSNames {
				names[strings.ToLower(n)] = true
			}
		}
		return
	}
}
