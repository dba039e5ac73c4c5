package acmepersist

import (
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
)

// What was written while the clock was a year ahead holds nothing up once it is right
// (scenario 58).
func TestClockWasAhead(t *testing.T) {
	st := newStore(&certmagic.FileStorage{Path: t.TempDir()}, "https://ca.test/dir")
	const name = "_validation-persist.example.com"
	now := time.Now().UTC()
	later := now.AddDate(1, 0, 0)
	wrong := nameState{
		Name: name, Attempts: []time.Time{now.Add(-time.Hour), later, later, later, later},
		Refused:      []refusedValue{{Value: "x", Account: "a", At: later}, {Value: "y", Account: "a", At: now}},
		PartialSince: later, LookedAt: later, NotBefore: later, CAASince: later,
		Accepted: []acceptedValue{{Value: "v", Account: "a", At: later}},
	}
	key := st.Key("names", st.Safe(name)+".json")
	if err := st.Save(t.Context(), key, wrong); err != nil {
		t.Fatal(err)
	}
	var n nameState
	if err := new(names).update(t.Context(), st, name, func(s *nameState) bool { n = *s; return false }); err != nil {
		t.Fatal(err)
	}
	if at := n.nextAttempt(); at.After(now) {
		t.Errorf("the next attempt is at %s", at)
	}
	if n.refused("x", "a") || !n.refused("y", "a") || len(n.Accepted) != 1 {
		t.Errorf("state %+v", n)
	}
	if !n.PartialSince.IsZero() || !n.LookedAt.IsZero() || !n.CAASince.IsZero() {
		t.Errorf("state %+v", n)
	}

	no := false
	o := offer{CA: "https://ca.test/dir", Offered: &no, SeenAt: later, Directory: &directoryTerms{At: later}}
	o.heal(now)
	if err := o.refusal(false, false, notOfferedRetry, notOfferedRenewalRetry); err != nil || o.Directory.At.After(now) {
		t.Errorf("%v, %+v", err, o)
	}
}

// What lies ahead by right stays: waits, and the clocks of other nodes.
func TestClockIsRight(t *testing.T) {
	now := time.Now()
	n := nameState{Attempts: []time.Time{now.Add(time.Minute)}, NotBefore: now.Add(15 * time.Minute), CAASince: now.Add(5 * time.Hour)}
	n.heal(now)
	if len(n.Attempts) != 1 || n.NotBefore.IsZero() || n.CAASince.IsZero() {
		t.Errorf("state %+v", n)
	}
}
