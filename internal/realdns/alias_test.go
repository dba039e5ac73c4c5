//go:build unix

package realdns

import (
	"testing"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
)

// What wildcards, DNAMEs and owners make of a name, on servers that synthesize by the letter: a
// record at the name takes the place of a wildcard's answer.
func TestScenario27Alias(t *testing.T) {
	for make, start := range map[string]func(testing.TB, ...Zone) *Server{"BIND": BIND, "Knot": Knot} {
		for what, c := range map[string]struct {
			zone  string
			kind  propagation.AliasKind
			place string
		}{
			"wildcard CNAME":    {"* CNAME v\nv A 192.0.2.9\n", propagation.AliasWildcard, name},
			"CNAME":             {name + ". CNAME v\n", propagation.AliasSet, "v." + example},
			"beside a wildcard": {name + ". CNAME v\n* CNAME v\nv A 192.0.2.9\n", propagation.AliasSet, "v." + example},
			"DNAME":             {"www DNAME v\n", propagation.AliasSet, "_validation-persist.v." + example},
		} {
			t.Run(make+"/"+what, func(t *testing.T) {
				s := start(t, Zone{Origin: example, Text: ns(example, 1) + c.zone})
				w := newWorld(t, Unbound(t, map[string][]*Server{example: {s}}), s)
				rep := w.wait(gate(), propagation.StatusAbsent)
				if a := rep.Alias(); a.Kind != c.kind {
					t.Errorf("%q, want %q: %+v", a.Kind, c.kind, rep.Servers)
				}
				if place, err := rep.Alias().Place(); place != c.place || err != nil {
					t.Errorf("at %s (%v), want %s", place, err, c.place)
				}
				if c.kind != propagation.AliasSet {
					hasCode(t, rep, propagation.CodeWildcard)
					s.Update(example, add)
					w.ready(gate())
				}
			})
		}
	}
}
