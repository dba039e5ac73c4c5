package parking

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
)

// invited is a domain that was asked for on demand at a time; nil if there is no room for it.
func (w *world) invited(t *testing.T, o *owner, domain string, at time.Time) *entry {
	t.Helper()
	_ = w.attempt(t.Context(), o, domain, held(domain, time.Time{}))
	e := w.entryOf(o, domain)
	if e != nil {
		w.change(o, domain, func(e *entry) { e.guest.interest = at })
	}
	return e
}

// One registered domain makes room for its own names only, and the whole for the domain that has the
// most. Who asked last stays, and what has an owner.
func TestOnDemandDomainsAreCapped(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		o := w.configure("a")
		defer w.end(o)
		o.onDemand = true
		waits := func(domain string) bool { return w.Waits(o, domain) }
		then := time.Now().Add(-time.Hour)
		for i := range 3 {
			w.invited(t, o, fmt.Sprintf("n%d.crowd.example", i), then.Add(time.Duration(i)*time.Minute))
		}
		w.invited(t, o, "a.other.example", then.Add(-time.Hour))
		if _, err := w.Begin(t.Context(), o, "n0.crowd.example"); err == nil { // a handshake
			t.Error("the domain does not wait")
		}
		w.invited(t, o, "n3.crowd.example", then.Add(3*time.Minute))
		if waits("n1.crowd.example") || !waits("n0.crowd.example") || !waits("a.other.example") || !waits("n3.crowd.example") {
			t.Error("the fourth name of a domain has displaced another than its least wanted one")
		}
		w.invited(t, o, "b.other.example", then)
		w.invited(t, o, "third.example", then)
		w.invited(t, o, "fourth.example", then)
		if w.guests.count != 6 || waits("n2.crowd.example") || !waits("third.example") || !waits("fourth.example") {
			t.Errorf("%d names wait, want 6, and the domain with the most to have made room", w.guests.count)
		}
		for _, name := range []string{"n0.crowd.example", "n3.crowd.example"} {
			w.entryOf(o, name).sees(propagation.Report{Servers: []propagation.ServerReport{{Verdict: propagation.VerdictYes}}})
		}
		o.configuration.Limits.MaxWaitingPerDomain, o.configuration.Limits.MaxWaiting = 2, 7
		if w.invited(t, o, "n9.crowd.example", then) != nil {
			t.Error("a name with an owner has made room")
		}
		o.configuration.Names = func(domain string) bool { return domain == "crowd.example" }
		if w.invited(t, o, "n9.crowd.example", then) == nil {
			t.Error("a domain of the configuration's has a bound of its own")
		}
		for _, s := range w.Snapshot() {
			w.Forget(o, s.Domain)
		}
		if w.guests.count != 0 || len(w.guests.domains) != 0 {
			t.Errorf("%d names are counted and none waits", w.guests.count)
		}
	})
}

// A watch ends when nobody asks for the domain any more, unless its owner has done something, or it has
// a certificate; our own attempts are nobody's interest.
func TestOnDemandWatchEnds(t *testing.T) {
	for what, c := range map[string]struct {
		change func(t *testing.T, w *world, o *owner, e *entry)
		stays  bool
	}{
		"nobody asks": {func(*testing.T, *world, *owner, *entry) {}, false},
		"a handshake": {func(t *testing.T, w *world, o *owner, _ *entry) { _, _ = w.Begin(t.Context(), o, "a.example") }, true},
		"our own": {func(t *testing.T, w *world, o *owner, _ *entry) {
			_, _ = w.Begin(acmepersist.InBackground(t.Context()), o, "a.example")
		}, false},
		"a record seen": {func(_ *testing.T, _ *world, _ *owner, e *entry) { e.guest.hasOwner = true }, true},
		"a certificate": {func(_ *testing.T, _ *world, _ *owner, e *entry) { e.hold.NotAfter = time.Now().Add(time.Hour) }, true},
		"at work":       {func(_ *testing.T, _ *world, _ *owner, e *entry) { e.busyUntil = time.Now().Add(48 * time.Hour) }, true},
	} {
		inBubble(t, func(t *testing.T, w *world) {
			o := w.configure("a")
			defer w.end(o)
			o.onDemand = true
			e := w.invited(t, o, "a.example", time.Now().Add(-24*time.Hour+time.Second))
			c.change(t, w, o, e)
			time.Sleep(2 * time.Second)
			e.timeUp("test")
			if synctest.Wait(); w.Waits(o, "a.example") != c.stays {
				t.Errorf("%s: it waits: %v", what, !c.stays)
			}
		})
	}
}

// A domain that was asked for on demand and that a later configuration manages is no guest any more:
// no handshake would bring it back.
func TestManagedDomainIsNotAGuest(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		asked, manages := w.configure("a"), w.configure("a")
		defer w.end(asked)
		defer w.end(manages)
		asked.onDemand = true
		e := w.invited(t, asked, "a.example", time.Now().Add(-48*time.Hour))
		_, _ = w.Begin(t.Context(), manages, "a.example")
		e.timeUp("test")
		if !w.Waits(manages, "a.example") || w.guests.count != 0 {
			t.Errorf("the managed name is forgotten (%d guests)", w.guests.count)
		}
		if w.Forget(manages, "a.example") {
			t.Error("a no of the permission ends the wait for a managed name")
		}
	})
}

// A domain of the configuration that a reload leaves to visitors is one of theirs: counted as such, and forgotten
// when nobody asks for it.
func TestManagedDomainBecomesGuest(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		o := w.configure("a", "a.test")
		w.again(t, o, absent("a.test", "v"))
		next := w.configure("a")
		next.onDemand = true
		defer w.end(next)
		w.end(o)
		_ = w.attempt(t.Context(), next, "a.test", absent("a.test", "v"))
		w.mu.Lock()
		guests := w.guests.count
		w.unlock()
		if s := w.Of("a.test"); len(s) != 1 || !s[0].IsOnDemand || s[0].AskedAt.IsZero() || guests != 1 {
			t.Errorf("the domain is %+v, of %d on demand", s, guests)
		}
		time.Sleep(48 * time.Hour)
		if synctest.Wait(); w.Waits(next, "a.test") || w.guests.count != 0 {
			t.Error("it waits for ever without a visitor")
		}
	})
}

// A reload leaves the domains that visitors have asked for as they are: nobody has to come again.
func TestGuestsOverAReload(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		o := w.configure("a")
		o.onDemand = true
		if err := w.attempt(t.Context(), o, "a.test", missing("a.test", "v")); err == nil {
			t.Fatal("it does not wait")
		}
		other, next := w.configure("b"), w.configure("a")
		defer w.end(other)
		defer w.end(next)
		for _, o := range []*owner{other, next} {
			o.onDemand = true
			o.configuration.OnDemand = func(string) []Owner { return []Owner{o} }
			w.mu.Lock()
			w.adopt(o.configuration)
			w.unlock()
		}
		w.end(o)
		time.Sleep(2 * orphanFor)
		synctest.Wait()
		w.show(next, "a.test", propagation.StatusReady)
		if synctest.Wait(); next.retries() != 1 || other.retries() != 0 {
			t.Errorf("with its record it is retried %d times, and %d times for another issuer", next.retries(), other.retries())
		}
	})
}
