package acmepersist

import (
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
)

// What was written while the clock was a year ahead holds nothing up once it is right
// (scenario 58).
func TestClockWasAhead(t *testing.T) {
	st := state.New(&certmagic.FileStorage{Path: t.TempDir()}, "https://ca.test/dir")
	const name = "_validation-persist.example.com"
	now := time.Now().UTC()
	later := now.AddDate(1, 0, 0)
	wrong := state.Name{
		Name: name, Attempts: []time.Time{now.Add(-time.Hour), later, later, later, later},
		Refused:      []state.RefusedValue{{Value: "x", Account: "a", At: later}, {Value: "y", Account: "a", At: now}},
		PartialSince: later, LookedAt: later, ChangeAt: later, NotBefore: later, CAASince: later,
		Accepted: []state.AcceptedValue{{Value: "v", Account: "a", At: later}},
	}
	key := st.Key("names", state.Safe(name)+".json")
	if err := st.Save(t.Context(), key, wrong); err != nil {
		t.Fatal(err)
	}
	n, err := st.Name(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	if at := n.NextAttempt(); at.After(now) {
		t.Errorf("the next attempt is at %s", at)
	}
	if n.HasRefused("x", "a") || !n.HasRefused("y", "a") || len(n.Accepted) != 1 {
		t.Errorf("state %+v", n)
	}
	if !n.PartialSince.IsZero() || !n.LookedAt.IsZero() || !n.ChangeAt.IsZero() || !n.CAASince.IsZero() {
		t.Errorf("state %+v", n)
	}
}

// What lies ahead by right stays: waits, and the clocks of other nodes.
func TestClockIsRight(t *testing.T) {
	now := time.Now()
	n := state.Name{Attempts: []time.Time{now.Add(time.Minute)}, NotBefore: now.Add(15 * time.Minute), CAASince: now.Add(5 * time.Hour)}
	n.Repair(now)
	if len(n.Attempts) != 1 || n.NotBefore.IsZero() || n.CAASince.IsZero() {
		t.Errorf("state %+v", n)
	}
}
