package dnspersist

import (
	"testing"
	"testing/synctest"
	"time"
)

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
