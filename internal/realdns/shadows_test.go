//go:build unix

package realdns

import (
	"testing"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
)

// Whether a host lives from a wildcard, and whether a text is one's, on servers that synthesize by
// the letter.
func TestScenario29WildcardsHost(t *testing.T) {
	const own = "www A 192.0.2.9\n"
	for make, start := range map[string]func(testing.TB, ...Zone) *Server{"BIND": BIND, "Knot": Knot} {
		for what, c := range map[string]struct {
			zone          string
			shadows, text bool
		}{
			"wildcard":                {"* A 192.0.2.9\n", true, false},
			"own":                     {"* A 192.0.2.9\n" + own, false, false},
			"own, with a wildcard":    {"* A 192.0.2.9\n*.www A 192.0.2.9\n" + own, false, false},
			"wildcard, with a text":   {"* A 192.0.2.9\n* TXT \"v=spf1 -all\"\n", true, true},
			"own, a text of the name": {"* A 192.0.2.9\n" + own + name + ". TXT \"v=spf1 -all\"\n", false, false},
		} {
			t.Run(make+"/"+what, func(t *testing.T) {
				s := start(t, Zone{Origin: example, Text: ns(example, 1) + c.zone})
				w := newWorld(t, Unbound(t, map[string][]*Server{example: {s}}), s)
				rep := w.wait(gate(), propagation.StatusAbsent)
				if (rep.Shadows != "") != c.shadows {
					t.Errorf("%q", rep.Shadows)
				}
				if c.text && (len(rep.Values) != 1 || len(rep.At(name).Values) != 0) {
					t.Errorf("answered %q, published %q", rep.Values, rep.At(name).Values)
				}
			})
		}
	}
}
