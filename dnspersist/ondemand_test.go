package dnspersist

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddytls"
	"github.com/caddyserver/certmagic"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
)

// onDemand is a parker of a configuration for names that are asked for on demand.
func onDemand(t *testing.T, limits OnDemand) (*App, *parker) {
	t.Helper()
	a, k := newParker(t, aloneApps)
	a.onDemand = limits.withDefaults()
	cfg := *k.cfg
	cfg.OnDemand = &certmagic.OnDemandConfig{DecisionFunc: func(context.Context, string) error { return nil }}
	k.cfg = &cfg
	return a, k
}

// waits reports whether a name is parked.
func waits(k *parker, name string) bool {
	s := k.iss.rt.app.shared
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.parked[k.key(name)] != nil
}

func parkAt(t *testing.T, k *parker, name string, at time.Time) *parked {
	t.Helper()
	p := park(t, k, name)
	if p != nil {
		k.iss.rt.app.shared.mu.Lock()
		p.guest.interest = at
		k.iss.rt.app.shared.mu.Unlock()
	}
	return p
}

// One registered domain makes room for its own names only, and the whole for the domain that has the
// most. Who asked last stays, and what has an owner.
func TestOnDemandNamesAreCapped(t *testing.T) {
	a, k := onDemand(t, OnDemand{MaxWaiting: 6, MaxWaitingPerDomain: 3})
	then := time.Now().Add(-time.Hour)
	for i := range 3 {
		parkAt(t, k, fmt.Sprintf("n%d.crowd.example", i), then.Add(time.Duration(i)*time.Minute))
	}
	parkAt(t, k, "a.other.example", then.Add(-time.Hour))
	if _, err := k.Parked(t.Context(), "n0.crowd.example"); err == nil { // a handshake
		t.Error("the name is not parked")
	}
	parkAt(t, k, "n3.crowd.example", then.Add(3*time.Minute))
	if waits(k, "n1.crowd.example") || !waits(k, "n0.crowd.example") || !waits(k, "a.other.example") || !waits(k, "n3.crowd.example") {
		t.Error("the fourth name of a domain has displaced another than its least wanted one")
	}
	parkAt(t, k, "b.other.example", then)
	parkAt(t, k, "third.example", then)
	parkAt(t, k, "fourth.example", then)
	if a.shared.guests.count != 6 || waits(k, "n2.crowd.example") || !waits(k, "third.example") || !waits(k, "fourth.example") {
		t.Errorf("%d names wait, want 6, and the domain with the most to have made room", a.shared.guests.count)
	}
	for name := range map[string]bool{"n0.crowd.example": true, "n3.crowd.example": true} {
		p := park(t, k, name)
		p.sees(propagation.Report{Servers: []propagation.ServerReport{{Verdict: propagation.VerdictYes}}})
	}
	a.onDemand.MaxWaitingPerDomain, a.onDemand.MaxWaiting = 2, 7
	if park(t, k, "n9.crowd.example") != nil {
		t.Error("a name with an owner has made room")
	}
	a.namedDomains = map[string]bool{"crowd.example": true}
	if park(t, k, "n9.crowd.example") == nil {
		t.Error("a domain of the configuration's has a bound of its own")
	}
	for _, p := range a.shared.parkedOf(a) {
		a.shared.forget(p)
	}
	if a.shared.guests.count != 0 || len(a.shared.guests.domains) != 0 {
		t.Errorf("%d names are counted and none waits", a.shared.guests.count)
	}
}

// A watch ends when nobody asks for the name any more, unless its owner has done something, or it has
// a certificate; our own attempts are nobody's interest.
func TestOnDemandWatchEnds(t *testing.T) {
	for what, c := range map[string]struct {
		change func(k *parker, p *parked)
		stays  bool
	}{
		"nobody asks":   {func(*parker, *parked) {}, false},
		"a handshake":   {func(k *parker, _ *parked) { _, _ = k.Parked(t.Context(), "a.example") }, true},
		"our own":       {func(k *parker, _ *parked) { _, _ = k.Parked(acmepersist.InBackground(t.Context()), "a.example") }, false},
		"look now":      {func(_ *parker, p *parked) { p.noteInterest(time.Now()) }, true},
		"a record seen": {func(_ *parker, p *parked) { p.guest.hasOwner = true }, true},
		"a certificate": {func(_ *parker, p *parked) { p.hold.NotAfter = time.Now().Add(time.Hour) }, true},
		"at work":       {func(_ *parker, p *parked) { p.busyUntil = time.Now().Add(time.Hour) }, true},
	} {
		a, k := onDemand(t, OnDemand{ForgetAfter: caddy.Duration(time.Hour)})
		p := parkAt(t, k, "a.example", time.Now().Add(-time.Hour))
		c.change(k, p)
		a.shared.timeUp(p, "test")
		waited := waits(k, "a.example")
		a.shared.forget(p)
		if waited != c.stays {
			t.Errorf("%s: it waits: %v", what, !c.stays)
		}
	}
}

// A no of the permission ends the watch at once, and only a no: an ask that times out is none.
func TestPermissionEndsTheWatch(t *testing.T) {
	for what, c := range map[string]struct {
		err   error
		stays bool
	}{
		"no":       {fmt.Errorf("a.example: %w", caddytls.ErrPermissionDenied), false},
		"time-out": {context.DeadlineExceeded, true},
		"yes":      {nil, true},
	} {
		_, k := onDemand(t, OnDemand{})
		given := k.cfg.OnDemand
		given.DecisionFunc = func(context.Context, string) error { return c.err }
		k.iss.hearPermission(k.cfg)
		wrapped := k.cfg.OnDemand
		if k.iss.hearPermission(k.cfg); k.cfg.OnDemand != wrapped {
			t.Error("the permission is wrapped twice")
		}
		parkAt(t, k, "a.example", time.Now())
		if err := k.cfg.OnDemand.DecisionFunc(t.Context(), "a.example"); !errors.Is(err, c.err) {
			t.Errorf("%s: the handshake is told %v", what, err)
		}
		if waits(k, "a.example") != c.stays {
			t.Errorf("%s at a handshake: it waits: %v", what, !c.stays)
		}
		// the same when we ask before a hand-back
		k.cfg.OnDemand = given
		if p := park(t, k, "b.example"); c.err != nil {
			o, _ := k.iss.rt.app.shared.newest(p)
			if _, err := k.iss.rt.app.shared.obtain(t.Context(), o, p, time.Time{}); err != nil {
				t.Error(err)
			}
			if waits(k, "b.example") != c.stays {
				t.Errorf("%s at a hand-back: it waits: %v", what, !c.stays)
			}
		}
	}
}

// A record is not removed sooner than it could be noted that it is still wanted.
func TestRemoveAfterHasALeast(t *testing.T) {
	for after, good := range map[time.Duration]bool{0: true, time.Hour: false, 48 * time.Hour: true, -time.Hour: false} {
		if err := (&OnDemand{RemoveAfter: caddy.Duration(after)}).validate(); (err == nil) != good {
			t.Errorf("%s: %v", after, err)
		}
	}
}
