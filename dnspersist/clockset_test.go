package dnspersist

import (
	"errors"
	"testing"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/internal/walltime"
)

// A name that waits is tried when its time has come by a clock that was put ahead, for a
// certificate may run out then, and not later than it would have been by one that was put back.
func TestClockIsSetWhileANameWaits(t *testing.T) {
	app, k := newParker(t, aloneApps)
	wait := errors.New("wait")
	parkUntil := func(at time.Time) *parked {
		k.Park(t.Context(), &acmepersist.Hold{Domain: "a.example", Until: at, Err: wait})
		return app.shared.parked[k.key("a.example")]
	}
	parked := func() bool {
		_, err := k.Parked(t.Context(), "a.example")
		return errors.Is(err, wait)
	}
	at := time.Now().Add(time.Hour).Round(0)
	p := parkUntil(at)
	if !parked() {
		t.Fatal("it does not wait")
	}
	restore := walltime.Set(2 * time.Hour)
	if parked() {
		t.Error("two hours ahead it waits on")
	}
	restore()
	defer walltime.Set(-48 * time.Hour)()
	if !parked() {
		t.Error("two days back it does not wait")
	}
	p.due = time.Now()
	app.shared.timeUp(p, "the timer has run out")
	if parked() {
		t.Error("two days back it waits on although its time has gone by")
	}
	// what another attempt has set meanwhile stays
	later := walltime.Now().Add(time.Hour)
	parkUntil(later)
	if app.shared.timeUp(p, "an older timer"); !parked() {
		t.Error("an older timer ends another wait")
	}
}
