package dnspersist

import (
	"errors"
	"testing"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
)

// A timer that runs out while the name is not to be retried is not the last one: servers that
// show the record ask for a time of their own, and an attempt may take longer than any.
func TestTimerRunsOutWhileTheNameMayNotBeHandedBack(t *testing.T) {
	for what, hold := range map[string]func(k *parker, p *parked){
		"after a failure": func(k *parker, p *parked) {
			p.failures = 6
			if !k.retries(t.Context(), "a.example", errors.New("HTTP 500")) {
				t.Fatal("the name is left to nobody")
			}
		},
		"retried": func(_ *parker, p *parked) { p.busyUntil = time.Now().Add(time.Hour) },
		"at work": func(k *parker, _ *parked) { k.begins("a.example") },
	} {
		app, k := newParker(t, aloneApps)
		p := park(t, k, "a.example")
		hold(k, p)
		p.hold.Watch = new(acmepersist.Watch)
		app.shared.observed(p, propagation.Report{
			Status: propagation.StatusPartial, FirstYes: time.Now().Add(-2 * time.Hour),
		})
		p.timer.Stop()
		app.shared.timeUp(p, "test")
		if !p.timer.Stop() {
			t.Errorf("%s: no timer is left, and only a record on every server would have it tried again", what)
		}
		app.shared.forget(p)
	}
}

// A name is not retried while an attempt for it goes on, such as one that has a certificate to
// fetch: CertMagic would have a job each minute wait for its lock, and has a thousand for all.
func TestNoSecondJobBesideAnAttempt(t *testing.T) {
	app, k := newParker(t, aloneApps)
	p := park(t, k, "a.example")
	p.retry = time.Time{} // its time has come
	ends := k.begins("a.example")
	app.shared.handed(p, backgroundJob) // CertMagic has begun a job
	p.busyUntil = time.Now().Add(-time.Second)
	if app.shared.handBack(p, "test"); time.Now().Before(p.busyUntil) {
		t.Error("a second job is begun beside an attempt that goes on")
	}
	ends()
	slots := app.shared.slotsOf("https://ca.test/dir")
	for range cap(slots) {
		slots <- struct{}{} // it begins and waits for its turn
	}
	if app.shared.handBack(p, "test"); !time.Now().Before(p.busyUntil) {
		t.Error("the name is not retried after the attempt")
	}
}
