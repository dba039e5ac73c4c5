package dnspersist

import (
	"testing"
	"time"

	"github.com/dnspersist/caddy-dnspersist/internal/tuning"
)

// A configuration keeps the tuning under which it was provisioned.
func TestTuningIsReadOnce(t *testing.T) {
	restore := tuning.Set(tuning.Values{HandBack: time.Hour, AnnounceWindow: 2 * time.Hour, AnnounceAgain: 3 * time.Hour})
	a, k := newParker(t, siteApps(aloneApps, "a.example"))
	restore()
	before := time.Now()
	k.Park(t.Context(), missing("a.example", "v"))
	a.shared.announcer.want(watched("b.example", "v"), a, false)
	for _, p := range a.shared.parked {
		if wait := p.retry.Sub(before); wait < time.Hour || wait > 2*time.Hour {
			t.Errorf("the name is retried after %s, want an hour", wait)
		}
	}
	for _, w := range a.shared.announcer.wanted {
		if wait := w.next.Sub(before); wait < 2*time.Hour || wait > 3*time.Hour || w.interval != 3*time.Hour {
			t.Errorf("the record is announced after %s, again after %s", wait, w.interval)
		}
	}
	if len(a.shared.parked) != 1 || len(a.shared.announcer.wanted) != 1 {
		t.Errorf("%d names wait and %d records are announced", len(a.shared.parked), len(a.shared.announcer.wanted))
	}
}
