package dnspersist

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
)

// A CA that was down, or has lost the account, is asked again after minutes, unless an attempt does so: whoever is
// called at night sees within minutes that it is over.
func TestACAInTroubleIsAskedAgain(t *testing.T) {
	for name, c := range map[string]struct {
		trouble, over acmepersist.Event
		isWanted      bool
	}{
		"a lost account":                       {acmepersist.EventAccountLost, acmepersist.EventAccountUsable, false},
		"a lost account that domains wait for": {acmepersist.EventAccountLost, acmepersist.EventAccountUsable, true},
		"a CA that is down":                    {acmepersist.EventCADown, acmepersist.EventCAAnswered, false},
	} {
		t.Run(name, func(t *testing.T) {
			a, o := newOwner(t, aloneApps)
			seen := a.shared.metrics.CA(o.iss.CA, o.account())
			if c.isWanted {
				hold(t, o, "a.example")
			}
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				var asked atomic.Int32
				var isBack atomic.Bool
				go a.askAgain(ctx, func(*acmepersist.Issuer, context.Context) error {
					asked.Add(1)
					if !isBack.Load() {
						return errors.New("not yet")
					}
					seen.Happened(c.over)
					return nil
				})
				asks := func(within time.Duration, least, most int32) {
					t.Helper()
					asked.Store(0)
					time.Sleep(within)
					synctest.Wait()
					if n := asked.Load(); n < least || n > most {
						t.Errorf("within %s it was asked %d times, want %d to %d", within, n, least, most)
					}
				}
				asks(time.Hour, 0, 0)
				seen.Happened(c.trouble)
				asks(2*time.Minute, 1, 1)
				asks(24*time.Hour, 24*5, 24*7)
				isBack.Store(true)
				asks(12*time.Minute, 1, 1)
				if seen.IsAccountLost() || !seen.DownSince().IsZero() {
					t.Error("it does not know that it is over")
				}
				asks(time.Hour, 0, 0)
			})
		})
	}
	a, o := newOwner(t, aloneApps)
	a.shared.metrics.CA(o.iss.CA, o.account()).Happened(acmepersist.EventCADown)
	attempt, err := a.shared.registry.Begin(t.Context(), o, "a.example")
	if err != nil {
		t.Fatal(err)
	}
	attempt.Settle(t.Context(), &acmepersist.Hold{Reason: acmepersist.ReasonCADown, Domain: "a.example", CA: o.iss.CA, Err: errors.New("503")})
	if a.shared.needsAsking(o.iss) {
		t.Error("a CA is asked that an attempt will ask")
	}
}

// Daily work is done although no configuration lasts as long as the first wait for it.
func TestDailyWorkSurvivesReloads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s shared
		const first, most = 2 * time.Hour, 3 * time.Hour
		if wait := s.due(&s.nextLook, first, most); wait != first {
			t.Errorf("the first configuration waits %s", wait)
		}
		time.Sleep(90 * time.Minute)
		if wait := s.due(&s.nextLook, first, most); wait != 30*time.Minute {
			t.Errorf("the next one waits %s", wait)
		}
		// it ended during the work
		time.Sleep(40 * time.Minute)
		if wait := s.due(&s.nextLook, first, most); wait != soonest {
			t.Errorf("for what is due it waits %s", wait)
		}
		if wait := s.due(&s.nextLook, time.Second, most); wait != time.Second {
			t.Errorf("it waits %s for what is done each second", wait)
		}
		s.again(&s.nextLook, 5*time.Hour)
		if wait := s.due(&s.nextLook, first, most); wait != most {
			t.Errorf("after a change of intervals it waits %s", wait)
		}
		if !s.nextRead.IsZero() {
			t.Error("one kind of work has set the time of another")
		}
	})
}
