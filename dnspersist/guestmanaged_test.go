package dnspersist

import (
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
)

// A name that was asked for on demand and that a later configuration manages is no guest any more:
// nothing else would bring it back.
func TestManagedNameIsNoGuest(t *testing.T) {
	for what, comes := range map[string]func(k *parker){
		"by a job that finds it waiting": func(k *parker) { _, _ = k.Parked(t.Context(), "a.example") },
		"by an attempt of its own":       func(k *parker) { park(t, k, "a.example") },
	} {
		a, asked := onDemand(t, OnDemand{ForgetAfter: caddy.Duration(time.Hour)})
		p := parkAt(t, asked, "a.example", time.Now().Add(-2*time.Hour))
		_, manages := newParker(t, aloneApps)
		if asked.key("a.example") != manages.key("a.example") {
			t.Fatal("the issuers differ")
		}
		comes(manages)
		a.shared.timeUp(p, "test")
		if !waits(manages, "a.example") || a.shared.guests.count != 0 {
			t.Errorf("%s: the managed name is forgotten (%d guests)", what, a.shared.guests.count)
		}
		a.shared.forget(p)
	}
}
