package dnspersist

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddytls"
	"github.com/caddyserver/certmagic"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/parking"
	"github.com/dnspersist/caddy-dnspersist/internal/tuning"
)

const (
	aloneApps = `{"tls":{"automation":{"policies":[{"issuers":[{"module":"dns_persist","ca":"https://ca.test/dir"}]}]}}}`
	chainApps = `{"tls":{"automation":{"policies":[{"issuers":[{"module":"dns_persist","ca":"https://ca.test/dir"},{"module":"internal"}]}]}}}`
)

// newOwner is the owner that a configuration's first issuer is.
func newOwner(t testing.TB, apps string) (*App, owner) {
	t.Helper()
	a, _ := provisionedApp(t, apps)
	return a, owner{a.planned().Issuers()[0]}
}

// onDemand has names of the owner asked for on demand, as far as decide permits them.
func onDemand(o owner, decide func(context.Context, string) error) {
	cfg := *o.iss.rt.config()
	cfg.OnDemand = &certmagic.OnDemandConfig{DecisionFunc: decide}
	o.iss.SetConfig(&cfg)
}

// hold has a domain wait, and reports whether it does.
func hold(t *testing.T, o owner, domain string) bool {
	t.Helper()
	r := o.iss.rt.app.shared.registry
	attempt, err := r.Begin(t.Context(), o, domain)
	if err != nil {
		t.Fatal(err)
	}
	attempt.Settle(t.Context(), &acmepersist.Hold{Reason: acmepersist.ReasonAccount, Domain: domain, Err: errors.New("wait")})
	return r.Waits(o, domain)
}

// Equal issuers of two configurations share their waits, and one beside another issuer has none.
func TestOwners(t *testing.T) {
	_, one := newOwner(t, aloneApps)
	_, other := newOwner(t, aloneApps)
	_, chain := newOwner(t, chainApps)
	if one.Key() != other.Key() || !hold(t, one, "a.example") || !other.iss.rt.app.shared.registry.Waits(other, "a.example") {
		t.Error("a reload would begin the wait anew")
	}
	if !one.IsAlone() || chain.IsAlone() || one.IsOnDemand() {
		t.Error("an issuer does not know its policy")
	}
	chain.iss.rt.app.shared.registry.Forget(chain, "a.example")
	if r := chain.iss.rt.app.shared.registry; r.Waits(chain, "a.example") {
		t.Error("it waits in the chain")
	}
}

// What a running Caddy waits for is listed, whoever asked for it.
func TestWhatWaitsIsManaged(t *testing.T) {
	a, o := newOwner(t, aloneApps)
	if got := a.operator().Managed(); len(got) > 0 {
		t.Fatalf("managed are %q", got)
	}
	if !hold(t, o, "tenant.example") {
		t.Fatal("it does not wait")
	}
	if got := a.operator().Managed(); len(got) != 1 || got[0] != "tenant.example" {
		t.Errorf("managed are %q", got)
	}
	a.end()
	if got := a.operator().Managed(); len(got) > 0 {
		t.Errorf("after its configuration has ended: %q", got)
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
		a, o := newOwner(t, aloneApps)
		onDemand(o, func(context.Context, string) error { return c.err })
		wrapped := o.iss.rt.config().OnDemand
		if o.iss.SetConfig(o.iss.rt.config()); o.iss.rt.config().OnDemand != wrapped {
			t.Error("the permission is wrapped twice")
		}
		if !hold(t, o, "a.example") {
			t.Fatal("it does not wait")
		}
		if err := wrapped.DecisionFunc(t.Context(), "a.example"); !errors.Is(err, c.err) {
			t.Errorf("%s: the handshake is answered with %v", what, err)
		}
		if a.shared.registry.Waits(o, "a.example") != c.stays {
			t.Errorf("%s at a handshake: it waits: %v", what, !c.stays)
		}
		if c.err == nil {
			continue
		}
		// the same when we ask before a retry
		if done, err := o.Obtain(t.Context(), "b.example", time.Time{}); err != nil || done == c.stays {
			t.Errorf("%s at a retry: done is %v, %v", what, done, err)
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

// A configuration keeps the tuning under which it was provisioned.
func TestTuningIsReadOnce(t *testing.T) {
	restore := tuning.Set(tuning.Values{Retry: time.Hour, AnnounceWindow: 2 * time.Hour})
	a, _ := newOwner(t, aloneApps)
	restore()
	if a.waits.Timing.Retry != time.Hour || a.waits.Timing.AnnounceWindow != 2*time.Hour {
		t.Errorf("the times are %+v", a.waits.Timing)
	}
}

// What CertMagic reports of certificates reaches the registry, for the names that the configuration manages.
func TestCertificateEvents(t *testing.T) {
	a, o := newOwner(t, `{"tls":{"certificates":{"automate":["a.example","b.example"]},"automation":{"policies":[{"issuers":[{"module":"dns_persist","ca":"https://ca.test/dir"}]}]}}}`)
	a.shared.registry.Start(a.waits)
	emit := func(event string, data map[string]any) {
		t.Helper()
		if err := o.iss.rt.config().OnEvent(t.Context(), event, data); err != nil {
			t.Error(err)
		}
	}
	emit("cached_managed_cert", map[string]any{"sans": []string{"a.example", "tenant.example"}})
	if all := a.shared.registry.Snapshot(); len(all) != 2 || all[0].Phase != parking.PhaseWanted || all[1].Phase != parking.PhaseWanted {
		t.Errorf("before the start known are %+v", all)
	}
	certificateEvents{a}.start()
	a.work.Wait()
	emit("cert_failed", map[string]any{"identifier": "b.example", "error": errors.New("no")})
	if all := a.shared.registry.Snapshot(); len(all) != 2 || all[0].Phase != parking.PhaseServed || all[1].Phase != parking.PhaseFailed {
		t.Errorf("known are %+v", all)
	}
	emit("cert_obtained", map[string]any{"identifier": "b.example", "issuer": "ca.test-dir"})
	if all := a.shared.registry.Of("b.example"); len(all) != 1 || all[0].Phase != parking.PhaseServed || all[0].Issuer != "ca.test-dir" {
		t.Errorf("known is %+v", all)
	}
	if got := a.operator().Managed(); len(got) != 2 {
		t.Errorf("managed are %q", got)
	}
}

// An attempt at our bidding that does not come to an end has one all the same, which is no reload's.
func TestAttemptThatTakesTooLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, end := attemptContext(t.Context())
		defer end()
		time.Sleep(parking.AttemptTimeout + time.Second)
		if cause := context.Cause(ctx); !errors.Is(cause, parking.ErrTookLong) {
			t.Errorf("it is ended by %v", cause)
		}
	})
}
