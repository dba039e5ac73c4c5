package dnspersist

import (
	"context"
	"errors"
	"testing"
	"time"
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
		if got := afterFailures(tc.failures, tc.notAfter, now); got != tc.want {
			t.Errorf("%+v: %s", tc, got)
		}
	}
}

// A name that waits and meets another failure is tried again by the app alone: CertMagic would
// hold its lock for a minute, and a second job would begin beside it.
func TestFailureOfAWaitingName(t *testing.T) {
	app, k := newParker(t, aloneApps)
	const domain = "a.example"
	failed := errors.New("HTTP 500")
	if k.retries(t.Context(), domain, failed) {
		t.Fatal("a name that does not wait is left to nobody")
	}
	p := park(t, k, "a.example")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if k.retries(ended, domain, failed) {
		t.Error("the end of a configuration counts as a failure")
	}
	for n := 1; n <= 2; n++ {
		if !k.retries(t.Context(), domain, failed) || p.failures != n {
			t.Fatalf("%d failures are counted, want %d", p.failures, n)
		}
		failed = errors.New("HTTP 500 once more")
	}
	if wait := time.Until(p.retry); wait < time.Minute || wait > 2*time.Minute {
		t.Errorf("it is tried again after %s, want two minutes", wait)
	}
	if _, err := k.Parked(t.Context(), "a.example"); err == nil || err.Error() != "HTTP 500 once more" {
		t.Errorf("before its time it is told %v", err)
	}
	p.readyAt = time.Now() // as when the watch sees the record meanwhile
	app.shared.handBack(p, "the test wants it")
	if !p.busyUntil.IsZero() {
		t.Error("it is retried before its time")
	}
	park(t, k, "a.example")
	if p.failures != 0 || !p.failedUntil.IsZero() {
		t.Error("another wait does not end the count")
	}
}
