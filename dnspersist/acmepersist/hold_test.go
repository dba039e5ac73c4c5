package acmepersist

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/ca"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
)

func TestWhenAHoldIsDue(t *testing.T) {
	showing := func(s propagation.Status) propagation.Report { return propagation.Report{Status: s} }
	partial := propagation.Report{Status: propagation.StatusPartial, FirstYes: minutes(-10)}
	watch := &Watch{}
	moves := &Watch{Moved: func(r propagation.Report) bool { return r.Status == propagation.StatusAbsent }}
	for _, row := range []struct {
		name   string
		hold   Hold
		report propagation.Report
		at     time.Time
		why    string
	}{
		{"it is not for DNS", Hold{Until: minutes(9)}, showing(propagation.StatusReady), minutes(9), "whatever DNS shows"},
		{"the record is missing", Hold{Watch: watch}, showing(propagation.StatusAbsent), time.Time{}, ""},
		{"the record is missing, and it ends at some time", Hold{Watch: watch, Until: minutes(9)}, showing(propagation.StatusAbsent), minutes(9), "whatever DNS shows"},
		{"the record is ready", Hold{Watch: watch, Until: minutes(9)}, showing(propagation.StatusReady), minutes(0), "published on every server"},
		{"the record is ready, and the CA is down", Hold{Reason: ReasonCADown, Watch: watch, Until: minutes(9)}, showing(propagation.StatusReady), minutes(9), "whatever DNS shows"},
		{"some servers show it for long, and the CA is down", Hold{Reason: ReasonCADown, Watch: watch, Until: minutes(99)}, partial, minutes(99), "whatever DNS shows"},
		{"the name leads to another place", Hold{Watch: moves}, showing(propagation.StatusAbsent), minutes(0), "leads to where"},
		{"it leads to the same place", Hold{Watch: moves}, showing(propagation.StatusBlocked), time.Time{}, ""},
		{"some servers show it: the rest has an hour", Hold{Watch: watch}, partial, minutes(50), "on some servers for long"},
		{"unless it ends before", Hold{Watch: watch, Until: minutes(9)}, partial, minutes(9), "whatever DNS shows"},
		{"a renewal has time", Hold{Watch: watch, NotAfter: minutes(1000)}, partial, time.Time{}, ""},
	} {
		at, why := row.hold.Due(row.report, decideNow)
		if !at.Equal(row.at) || !strings.Contains(why, row.why) {
			t.Errorf("%s: it is due at %s because %q, want %s and %q", row.name, at, why, row.at, row.why)
		}
	}
}

func TestWaitingForAHold(t *testing.T) {
	for _, row := range []struct {
		name string
		// publishAfter is when the record comes, negative for never.
		publishAfter time.Duration
		until        time.Duration
		atLeast      time.Duration
		atMost       time.Duration
		ready        bool
	}{
		{"the record comes", 3 * time.Minute, 0, 3 * time.Minute, 4 * time.Minute, true},
		{"the time comes", -1, 5 * time.Minute, 5 * time.Minute, 5*time.Minute + time.Second, false},
		{"the time has come", -1, -time.Minute, 0, time.Second, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newTrial(t)
				hold := r.holds(ReasonAbsent)
				if row.until != 0 {
					hold.Until = time.Now().Add(row.until)
				}
				if row.publishAfter >= 0 {
					time.AfterFunc(row.publishAfter, func() { r.dns.set(wwwName, wwwValue) })
				}
				began := time.Now()
				seen, err := hold.Wait(t.Context())
				if took := time.Since(began); err != nil || took < row.atLeast || took > row.atMost {
					t.Errorf("after %s: %v", took, err)
				}
				if (seen.Status == propagation.StatusReady) != row.ready {
					t.Errorf("DNS showed last: %s", seen.Summary())
				}
			})
		})
	}
}

func TestWaitingEndsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		hold := &Hold{Domain: "www.example.test", Until: time.Now().Add(time.Hour), Err: errors.New("a limit")}
		if _, err := hold.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "waiting for www.example.test") {
			t.Errorf("the error is %v", err)
		}
	})
}

func TestAHoldAfterDNSHasShownSomethingNew(t *testing.T) {
	foreign := errors.New("the provider is down")
	waiting := &WaitingError{Record: Record{Name: wwwName, Value: wwwValue}, Report: propagation.Report{Status: propagation.StatusAbsent}, Err: foreign}
	finds := func(propagation.Report) Finding { return Finding{Values: []ValueVerdict{{Value: "v=spf1"}}} }
	for _, row := range []struct {
		reason Reason
		find   func(propagation.Report) Finding
		status propagation.Status
		want   Reason
	}{
		{ReasonAbsent, finds, propagation.StatusPartial, ReasonPartial},
		{ReasonAbsent, finds, propagation.StatusConfirming, ReasonConfirming},
		{ReasonPartial, finds, propagation.StatusReady, ReasonConfirming},
		{ReasonConfirming, finds, propagation.StatusBlocked, ReasonBlocked},
		{ReasonBlocked, finds, propagation.StatusAbsent, ReasonWrong},
		{ReasonWrong, func(propagation.Report) Finding { return Finding{} }, propagation.StatusAbsent, ReasonAbsent},
		{ReasonAbsent, nil, propagation.StatusPartial, ReasonAbsent},
		{ReasonPublish, finds, propagation.StatusPartial, ReasonPublish},
		{ReasonRejected, finds, propagation.StatusReady, ReasonRejected},
	} {
		hold := &Hold{Reason: row.reason, Err: fmt.Errorf("obtaining: %w", waiting), Watch: &Watch{Find: row.find}}
		fresh := hold.Seen(propagation.Report{Status: row.status, When: decideNow})
		if fresh.Reason != row.want || fresh.Watch.Report.Status != row.status || !hold.Watch.Report.When.IsZero() || hold.Reason != row.reason {
			t.Errorf("%s that sees %s becomes %s, want %s; it was %+v", row.reason, row.status, fresh.Reason, row.want, hold)
		}
		var w *WaitingError
		if !errors.As(fresh, &w) || w.Report.Status != row.status || !errors.Is(fresh, foreign) || !strings.Contains(fresh.Error(), "the provider is down") {
			t.Errorf("what else is wrong is forgotten: %v", fresh)
		}
	}
	rejected := &Hold{Reason: ReasonRejected, Err: foreign, Watch: &Watch{}}
	if fresh := rejected.Seen(propagation.Report{}); !errors.Is(fresh.Err, foreign) {
		t.Errorf("the error became %v", fresh.Err)
	}
}

func TestWhichErrorsAreHolds(t *testing.T) {
	at := minutes(7)
	for _, row := range []struct {
		err    error
		reason Reason // empty if it is returned as it is
		until  time.Time
	}{
		{&UnsupportedNameError{Name: "x", Err: errors.New("no")}, ReasonUnsupported, time.Time{}},
		{&ca.NotOfferedError{RetryAt: at}, ReasonNotOffered, at},
		{&ca.RateLimitedError{RetryAt: at, Err: errors.New("no")}, ReasonRateLimited, at},
		{&Hold{Reason: ReasonBudget, Until: at, Err: errors.New("no")}, ReasonBudget, at},
		{context.Canceled, "", time.Time{}},
		{errors.New("a storage that is full"), "", time.Time{}},
	} {
		a := &attempt{session: New(Config{CA: fakeDirectory}).sessionWith(nil)}
		var hold *Hold
		err := a.asHold(fmt.Errorf("trying: %w", row.err))
		switch is := errors.As(err, &hold); {
		case is != (row.reason != ""):
			t.Errorf("%T: the error is %T", row.err, err)
		case is && (hold.Reason != row.reason || !hold.Until.Equal(row.until) || !errors.Is(err, row.err)):
			t.Errorf("%T: %s until %s", row.err, hold.Reason, hold.Until)
		}
	}
	a := new(attempt)
	if err := a.asHold(nil); err != nil {
		t.Error(err)
	}
}

func TestWhatIsWaitedFor(t *testing.T) {
	isRecord := map[Reason]bool{ReasonAbsent: true, ReasonWrong: true, ReasonPartial: true, ReasonConfirming: true, ReasonBlocked: true}
	for _, reason := range []Reason{
		ReasonAbsent, ReasonWrong, ReasonPartial, ReasonConfirming, ReasonBlocked, ReasonPublish, ReasonBudget, ReasonRateLimited,
		ReasonNotOffered, ReasonAccount, ReasonAccountURI, ReasonCAA, ReasonRejected, ReasonProcessing, ReasonCADown, ReasonUnsupported,
	} {
		if reason.IsRecord() != isRecord[reason] {
			t.Errorf("%s: it is the record that is waited for: %v", reason, reason.IsRecord())
		}
	}
}

func TestHowLongACAIsLeftAlone(t *testing.T) {
	for _, row := range []struct{ down, left, want time.Duration }{
		{0, 0, time.Minute},
		{10 * time.Minute, 0, 5 * time.Minute},
		{24 * time.Hour, 0, time.Hour},
		{24 * time.Hour, 4 * time.Hour, 30 * time.Minute},
		{24 * time.Hour, 40 * time.Second, 10 * time.Second},
		{time.Hour, -time.Hour, 30 * time.Minute},
	} {
		if got := afterDown(row.down, row.left); got != row.want {
			t.Errorf("down for %s, with %s left: %s, want %s", row.down, row.left, got, row.want)
		}
	}
	for _, row := range []struct{ since, shortest, want time.Duration }{
		{0, time.Second, time.Second},
		{20 * time.Minute, time.Second, 5 * time.Minute},
		{10 * time.Hour, time.Second, 10 * time.Minute},
	} {
		if got := afterProcessing(row.since, row.shortest); got != row.want {
			t.Errorf("at work for %s: %s, want %s", row.since, got, row.want)
		}
	}
}

func TestUntilWhenAnAttemptWaitsWithinItself(t *testing.T) {
	life := func(left time.Duration) clock {
		return clock{certificate: &x509.Certificate{NotBefore: decideNow.Add(-90*24*time.Hour + left), NotAfter: decideNow.Add(left)}, ratio: 1.0 / 3}
	}
	if at := (clock{}).waitUntil(true, decideNow); !at.IsZero() {
		t.Errorf("a first certificate waits until %s", at)
	}
	if at := life(4*time.Hour).waitUntil(true, decideNow); !at.Equal(minutes(60)) {
		t.Errorf("a record settles until %s", at)
	}
	if at := life(29*24*time.Hour).waitUntil(false, decideNow); !at.Equal(decideNow.Add(14 * 24 * time.Hour)) {
		t.Errorf("servers are waited for until %s", at)
	}
}
