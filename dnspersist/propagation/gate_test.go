package propagation

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

var gateStart = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// rounds are written as one letter for each host, or for each address of a
// host where there are several, hosts separated by spaces:
// y yes, k yes with a value that a CA has accepted before, n no, b broken, s silent, a alias.
func roundOf(hosts string, at time.Duration) Round {
	r := Round{Name: "_validation-persist.example.test", Zone: "example.test", Mode: ModeAuthoritative, When: gateStart.Add(at)}
	zone := "example.test"
	for i, h := range strings.Fields(hosts) {
		if h == "|" { // the zone that an alias leads to
			zone = "target.test"
			continue
		}
		for j, letter := range h {
			s := ServerReport{
				Zone: zone, Name: "_validation-persist." + zone,
				Host: "ns" + string(rune('0'+i)), Addr: "192.0.2." + string(rune('0'+i)) + string(rune('0'+j)) + ":53",
				Verdict: map[rune]Verdict{'y': VerdictYes, 'k': VerdictYes, 'n': VerdictNo, 'b': VerdictBroken, 's': VerdictSilent, 'a': VerdictYes}[letter],
			}
			switch letter {
			case 'y':
				s.Values = []string{"value"}
			case 'k':
				s.Values = []string{"accepted", "value"}
			case 'a':
				s.Alias = "_validation-persist.target.test."
			}
			r.Servers = append(r.Servers, s)
		}
	}
	r.known = Target{Known: func(values []string) bool { return slices.Contains(values, "accepted") }}.areKnown(r.Servers)
	return r
}

func TestGate(t *testing.T) {
	t.Parallel()
	type step struct {
		at    time.Duration // seconds
		hosts string
		want  Status
	}
	tests := []struct {
		name  string
		steps []step
	}{
		{"complete at first look: second round at once", []step{{0, "y y", StatusConfirming}, {0, "y y", StatusReady}, {3600, "y y", StatusReady}}},
		{"seen to appear: settle", []step{{0, "n n", StatusAbsent}, {5, "y y", StatusConfirming}, {6, "y y", StatusConfirming}, {14, "y y", StatusConfirming}, {15, "y y", StatusReady}}},
		{"settle needs two rounds", []step{{0, "n n", StatusAbsent}, {100, "y y", StatusConfirming}, {200, "y y", StatusReady}}},
		{"any no blocks for ever", []step{{0, "y y y y y n", StatusPartial}, {3600, "y y y y y n", StatusPartial}, {1e6, "y y y y y n", StatusPartial}}},
		{"never first yes", []step{{0, "y n", StatusPartial}, {1, "y n", StatusPartial}}},
		{"broken streak restarts settle", []step{{0, "n n", StatusAbsent}, {1, "y y", StatusConfirming}, {10, "y n", StatusPartial}, {12, "y y", StatusConfirming}, {21, "y y", StatusConfirming}, {22, "y y", StatusReady}}},
		{"a no breaks ready", []step{{0, "y y", StatusConfirming}, {0, "y y", StatusReady}, {5, "y n", StatusPartial}, {6, "y y", StatusConfirming}, {7, "y y", StatusConfirming}, {16, "y y", StatusReady}}},
		{"vanished", []step{{0, "y y", StatusConfirming}, {0, "y y", StatusReady}, {5, "n n", StatusAbsent}}},
		{"silent host excused after grace", []step{{0, "y s", StatusPartial}, {30, "y s", StatusPartial}, {59, "y s", StatusPartial}, {60, "y s", StatusConfirming}, {60, "y s", StatusReady}}},
		{"broken host excused after grace", []step{{0, "y b", StatusPartial}, {60, "y b", StatusConfirming}, {60, "y b", StatusReady}}},
		{"grace needs two looks", []step{{0, "y y", StatusConfirming}, {0, "y y", StatusReady}, {100, "y s", StatusPartial}, {130, "y s", StatusPartial}, {160, "y s", StatusConfirming}, {160, "y s", StatusReady}}},
		{"grace runs while absent", []step{{0, "n s", StatusAbsent}, {100, "n s", StatusAbsent}, {200, "y s", StatusConfirming}, {210, "y s", StatusReady}}},
		{"grace restarts when the host came back", []step{{0, "y s", StatusPartial}, {50, "y y", StatusConfirming}, {51, "y s", StatusPartial}, {61, "y s", StatusPartial}, {111, "y s", StatusConfirming}, {111, "y s", StatusReady}}},
		{"host that came back stale", []step{{0, "y s", StatusPartial}, {60, "y s", StatusConfirming}, {60, "y s", StatusReady}, {61, "y n", StatusPartial}}},
		{"half is enough", []step{{0, "y y s b", StatusPartial}, {60, "y y s b", StatusConfirming}, {60, "y y s b", StatusReady}}},
		{"less than half is not", []step{{0, "y s s", StatusPartial}, {60, "y s s", StatusPartial}, {3600, "y s s", StatusPartial}}},
		{"nothing answers", []step{{0, "s b", StatusBlocked}, {60, "s b", StatusBlocked}, {3600, "s b", StatusBlocked}}},
		{"dead IPv6 address costs nothing", []step{{0, "ys ys", StatusConfirming}, {0, "ys ys", StatusReady}}},
		{"stale IPv6 address blocks", []step{{0, "yn y", StatusPartial}, {3600, "yn y", StatusPartial}}},
		{"stale address beside a silent one", []step{{0, "sn y", StatusPartial}}},
		{"accepted before, complete at first look: one round", []step{{0, "k k", StatusReady}, {3600, "k k", StatusReady}}},
		{"accepted before on one server, another value on the other", []step{{0, "k y", StatusConfirming}, {0, "k y", StatusReady}}},
		{"accepted before, missing on one server", []step{{0, "k n", StatusPartial}, {5, "k k", StatusConfirming}, {15, "k k", StatusReady}}},
		{"accepted before, gone and back: settle", []step{{0, "n n", StatusAbsent}, {5, "k k", StatusConfirming}, {15, "k k", StatusReady}}},
		{"accepted before, one server silent: grace", []step{{0, "k s", StatusPartial}, {60, "k s", StatusReady}}},
		{"accepted before, dead IPv6 address", []step{{0, "ks ks", StatusReady}}},
		{"accepted before, behind an alias", []step{{0, "a a | k k", StatusReady}}},
		{"alias with target", []step{{0, "a a | y y", StatusConfirming}, {0, "a a | y y", StatusReady}}},
		{"alias without target", []step{{0, "a a | n n", StatusAbsent}}},
		{"alias, target partial", []step{{0, "a a | y n", StatusPartial}}},
		{"alias missing on one", []step{{0, "a n | y y", StatusPartial}}},
		{"alias, target silent", []step{{0, "a a | s s", StatusBlocked}}},
		{"alias on less than half", []step{{0, "a s s | y y", StatusPartial}, {100, "a s s | y y", StatusPartial}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			g := NewGate(60*time.Second, 10*time.Second)
			for i, s := range tt.steps {
				rep := g.Observe(roundOf(s.hosts, s.at*time.Second))
				if rep.Status != s.want {
					t.Fatalf("step %d at %d s: %s, want %s (%s)", i, s.at, rep.Status, s.want, rep.Summary())
				}
				if (rep.Reason == "") != (rep.Status == StatusReady) {
					t.Errorf("step %d: %s with reason %q", i, rep.Status, rep.Reason)
				}
			}
		})
	}
}

func TestGateError(t *testing.T) {
	t.Parallel()
	g := NewGate(0, 0)
	failed := Round{Name: "x", When: gateStart, Err: errors.New("no SOA found; set resolvers")}
	if rep := g.Observe(failed); rep.Status != StatusBlocked || rep.Reason != failed.Err.Error() {
		t.Errorf("report %+v", rep)
	}
	if rep := g.Observe(roundOf("y y", time.Second)); rep.Status != StatusConfirming || !rep.LookAgainAt.Equal(gateStart.Add(11*time.Second)) {
		t.Errorf("not seen complete at first look, so confirming to the 11th second: %+v", rep)
	}
	// An error in between restarts the settle time but not the grace.
	failed.When = gateStart.Add(2 * time.Second)
	g.Observe(failed)
	if rep := g.Observe(roundOf("y y", 11*time.Second)); rep.Status != StatusConfirming {
		t.Errorf("report %+v", rep)
	}
}

func TestGateReport(t *testing.T) {
	t.Parallel()
	g := NewGate(60*time.Second, 10*time.Second)
	g.Observe(roundOf("n n s", 0))
	rep := g.Observe(roundOf("y n s", 10*time.Second))
	if !rep.FirstYes.Equal(gateStart.Add(10*time.Second)) || !rep.Since.Equal(rep.FirstYes) || !slices.Equal(rep.Values, []string{"value"}) {
		t.Errorf("report %+v", rep)
	}
	for i, want := range []time.Duration{10 * time.Second, 0, 0} {
		if got := rep.Servers[i].Since.Sub(gateStart); got != want {
			t.Errorf("server %d: since %v, want %v", i, got, want)
		}
	}
	for _, part := range []string{"record on 1 of 3 name servers of example.test", "missing on ns1 (192.0.2.10:53"} {
		if !strings.Contains(rep.Summary(), part) {
			t.Errorf("summary %q lacks %q", rep.Summary(), part)
		}
	}
	if strings.Contains(rep.Summary(), "\n") {
		t.Error("summary of several lines")
	}
	rep = g.Observe(roundOf("y y s", 20*time.Second))
	if !rep.LookAgainAt.Equal(gateStart.Add(60 * time.Second)) {
		t.Errorf("look again at %v, want the end of the grace", rep.LookAgainAt.Sub(gateStart))
	}
	g.Observe(roundOf("y y s", 60*time.Second))
	rep = g.Observe(roundOf("y y s", 60*time.Second))
	if rep.Status != StatusReady || !slices.Equal(rep.Excused, []string{"ns2"}) {
		t.Errorf("report %+v", rep)
	}
	if rep = g.Observe(roundOf("n n n", 70*time.Second)); !rep.FirstYes.IsZero() || rep.Values != nil {
		t.Errorf("report after the record vanished %+v", rep)
	}
	rep.Servers[0].Verdict = VerdictYes
	if g.Report().Servers[0].Verdict != VerdictNo {
		t.Error("a report shares memory with the gate")
	}
}

func TestGateGlance(t *testing.T) {
	t.Parallel()
	glance := func(hosts string, n int, at time.Duration) Round {
		r := roundOf(hosts, at*time.Second)
		r.Partial, r.Servers = true, r.Servers[n:n+1]
		return r
	}
	g := NewGate(60*time.Second, 10*time.Second)
	g.Observe(roundOf("n n", 0))
	if rep := g.Observe(glance("n n", 0, 1)); rep.Status != StatusAbsent || len(rep.Servers) != 2 {
		t.Errorf("report %+v", rep)
	}
	if rep := g.Observe(glance("y y", 0, 2)); rep.Status != StatusPartial || rep.FirstYes.IsZero() {
		t.Errorf("report %+v", rep)
	}
	// Glances alone never open it.
	for i := range 100 {
		if rep := g.Observe(glance("y y", i%2, time.Duration(3+i))); rep.Status == StatusReady {
			t.Fatal("ready without a full look")
		}
	}
	g.Observe(roundOf("y y", 200*time.Second))
	if rep := g.Observe(roundOf("y y", 210*time.Second)); rep.Status != StatusReady {
		t.Errorf("report %+v", rep)
	}
	if rep := g.Observe(glance("n n", 1, 211)); rep.Status != StatusPartial {
		t.Errorf("report %+v", rep)
	}
}

func TestGateRecursive(t *testing.T) {
	t.Parallel()
	recursive := func(hosts string, at time.Duration) Round {
		r := roundOf(hosts, at*time.Second)
		r.Mode = ModeRecursive
		return r
	}
	g := NewGate(60*time.Second, 10*time.Second)
	for at := range 10 {
		if rep := g.Observe(recursive("y y s", time.Duration(at*100))); rep.Status != StatusPartial {
			t.Fatalf("a resolver was excused: %+v", rep)
		}
	}
	for ttl, want := range map[uint32]time.Duration{0: 5 * time.Second, 60: time.Minute, 86400: 15 * time.Minute} {
		r := recursive("y n", 2000)
		r.Servers[1].NegativeTTL = ttl
		if rep := g.Observe(r); rep.NextLookNotBefore.Sub(r.When) != want {
			t.Errorf("negative TTL %d: next look after %v, want %v", ttl, rep.NextLookNotBefore.Sub(r.When), want)
		}
	}
}

// A host that was silent long before a gate began needs no grace again.
func TestGraceIsRemembered(t *testing.T) {
	g := NewGate(time.Minute, time.Second)
	r := roundOf("y s", 0)
	for i := range r.Servers {
		if r.Servers[i].Verdict == VerdictSilent {
			r.Servers[i].BadSince, r.Servers[i].BadLooks = r.When.Add(-time.Hour), 5
		}
	}
	if rep := g.Observe(r); rep.Status != StatusConfirming || len(rep.Excused) != 1 {
		t.Errorf("after the first look: %s, excused %v", rep.Status, rep.Excused)
	}
}
