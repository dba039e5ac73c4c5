package parking

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/internal/memorystorage"
	"github.com/dnspersist/caddy-dnspersist/internal/walltime"
)

func TestAfterFailures(t *testing.T) {
	now := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	for _, tc := range []struct {
		failures int
		notAfter time.Time
		want     time.Duration
	}{
		{1, time.Time{}, time.Minute},
		{2, time.Time{}, 2 * time.Minute},
		{100, time.Time{}, time.Hour},
		{100, now.Add(30 * 24 * time.Hour), time.Hour},
		{100, now.Add(4 * time.Hour), 30 * time.Minute},
		{1, now.Add(time.Second), 10 * time.Second},
		{3, now.Add(-time.Hour), 5 * time.Minute},
	} {
		if got := AfterFailures(tc.failures, tc.notAfter, now); got != tc.want {
			t.Errorf("%+v: %s", tc, got)
		}
	}
}

// A timer that runs out while the domain is not to be retried is not the last one: servers that
// show the record ask for a time of their own, and an attempt may take longer than any.
func TestTimerRunsOutWhileTheDomainIsBusy(t *testing.T) {
	for what, hold := range map[string]func(w *world, o *owner, e *entry){
		"after a failure": func(w *world, o *owner, e *entry) { e.failures = 6; w.failed(o, "a.test", errors.New("HTTP 500")) },
		"retried":         func(_ *world, _ *owner, e *entry) { e.busyUntil = time.Now().Add(time.Hour) },
		"at work":         func(_ *world, _ *owner, e *entry) { e.atWork++ },
	} {
		inBubble(t, func(t *testing.T, w *world) {
			o := w.configure("a")
			defer w.end(o)
			_ = w.attempt(t.Context(), o, "a.test", missing("a.test", "v"))
			e := w.entryOf(o, "a.test")
			w.change(o, "a.test", func(e *entry) { hold(w, o, e) })
			e.observed(propagation.Report{Status: propagation.StatusPartial, FirstYes: time.Now().Add(-2 * time.Hour), When: time.Now()})
			w.change(o, "a.test", func(e *entry) { e.timer.Stop() })
			e.timeUp("test")
			isArmed := false
			w.change(o, "a.test", func(e *entry) { isArmed = e.timer.Stop() })
			if !isArmed {
				t.Errorf("%s: no timer is left, and only a record on every server would have it tried again", what)
			}
		})
	}
}

// A domain is not retried while an attempt for it goes on, such as one that has a certificate to
// fetch: CertMagic would have a job each minute wait for its lock, and has a thousand for all.
func TestNoSecondJobBesideAnAttempt(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		o := w.configure("a")
		defer w.end(o)
		_ = w.attempt(t.Context(), o, "a.test", held("a.test", time.Now().Add(time.Hour)))
		time.Sleep(time.Hour + time.Second)
		if synctest.Wait(); o.retries() != 1 {
			t.Fatalf("it is retried %d times", o.retries())
		}
		a, err := w.Begin(t.Context(), o, "a.test")
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(24 * time.Hour)
		if synctest.Wait(); o.retries() != 1 {
			t.Errorf("a second job is begun beside an attempt that goes on")
		}
		a.Settle(t.Context(), held("a.test", time.Now().Add(time.Hour)))
		time.Sleep(time.Hour + time.Second)
		if synctest.Wait(); o.retries() != 2 {
			t.Errorf("after the attempt it is retried %d times", o.retries()-1)
		}
	})
}

// A retry that ends without a word is followed by another one after an hour.
func TestRetryInVain(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		o := w.configure("a")
		defer w.end(o)
		_ = w.attempt(t.Context(), o, "a.test", held("a.test", time.Now().Add(time.Hour)))
		time.Sleep(3*time.Hour + time.Minute)
		if synctest.Wait(); o.retries() != 3 {
			t.Errorf("in three hours it is retried %d times", o.retries())
		}
		o.mu.Lock()
		o.obtain = func(string) (bool, error) { return true, nil }
		o.mu.Unlock()
		time.Sleep(time.Hour)
		if synctest.Wait(); w.entryOf(o, "a.test") != nil {
			t.Error("it waits although nothing is waited for any more")
		}
	})
}

// A domain that waits is tried when its time has come by a clock that was put ahead, for a
// certificate may run out then, and not later than it would have been by one that was put back.
func TestClockIsSetWhileADomainWaits(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		o := w.configure("a")
		defer w.end(o)
		waits := func() bool {
			_, err := w.Begin(t.Context(), o, "a.test")
			if err == nil { // nobody makes the attempt
				w.change(o, "a.test", func(e *entry) { e.atWork-- })
			}
			return errors.Is(err, errWait)
		}
		_ = w.attempt(t.Context(), o, "a.test", held("a.test", time.Now().Add(time.Hour).Round(0)))
		if !waits() {
			t.Fatal("it does not wait")
		}
		restore := walltime.Set(2 * time.Hour)
		if waits() {
			t.Error("two hours ahead it waits on")
		}
		restore()
		defer walltime.Set(-48 * time.Hour)()
		if !waits() {
			t.Error("two days back it does not wait")
		}
		time.Sleep(time.Hour + time.Second)
		if synctest.Wait(); o.retries() != 1 || waits() {
			t.Error("two days back it waits on although its time has gone by")
		}
		// what another attempt has set meanwhile stays
		_ = w.attempt(t.Context(), o, "a.test", held("a.test", walltime.Now().Add(time.Hour)))
		if w.entryOf(o, "a.test").timeUp("an older timer"); !waits() {
			t.Error("an older timer ends another wait")
		}
	})
}

// Somebody who asks for a domain may have corrected what it waits for: it is tried again, once a minute at most, and
// only by name. A CA that has refused it is asked again only if storage says so.
func TestPokeOfWhatSomebodyMayHaveCorrected(t *testing.T) {
	for reason, tries := range map[acmepersist.Reason]int{
		acmepersist.ReasonCAA: 1, acmepersist.ReasonAccount: 1, acmepersist.ReasonUnsupported: 0, acmepersist.ReasonCADown: 0, acmepersist.ReasonRateLimited: 0,
		acmepersist.ReasonBudget: 1, acmepersist.ReasonRejected: 1,
	} {
		t.Run(string(reason), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				defer w.Close()
				o := w.configure("a", "a.test")
				storage := state.Store{Storage: memorystorage.New()}
				o.storage = storage
				hold := held("a.test", time.Now().Add(6*time.Hour))
				hold.Reason = reason
				_ = w.attempt(t.Context(), o, "a.test", hold)
				if reason == acmepersist.ReasonBudget || reason == acmepersist.ReasonRejected {
					err := storage.UpdateName(t.Context(), "_validation-persist.a.test", func(n *state.Name) bool {
						n.NotBefore = time.Now().Add(time.Hour)
						return true
					})
					if err != nil {
						t.Fatal(err)
					}
					w.Poke([]string{"a.test"})
					o.work.Wait()
					if n := o.retries(); n != 0 {
						t.Errorf("it is tried %d times before storage says so", n)
					}
					time.Sleep(2 * time.Hour) // as if a command had asked the CA, which has accepted it
				}
				w.Poke(nil)
				o.work.Wait()
				if n := o.retries(); n != 0 {
					t.Errorf("it is tried %d times although nobody has asked for it", n)
				}
				for range 3 {
					w.Poke([]string{"A.test."})
					o.work.Wait()
				}
				if n := o.retries(); n != tries {
					t.Errorf("it is tried %d times, want %d", n, tries)
				}
				// what was asked for too early is not forgotten, and done once
				_ = w.attempt(t.Context(), o, "a.test", hold)
				if next := w.Of("a.test")[0].Next; next.Before(time.Now().Add(pokeEvery+time.Second)) != (tries > 0) {
					t.Errorf("it is tried again at %s", next)
				}
				time.Sleep(pokeEvery + time.Second)
				o.work.Wait()
				if n := o.retries(); n != 2*tries {
					t.Errorf("after a minute it is tried %d times, want %d", n, 2*tries)
				}
			})
		})
	}
}
