package parking

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
)

// An announcement says what to add before the record, asks for it where a wildcard's CNAME is only
// in its place, and follows the owner's.
func TestAnnouncementSaysWhatToAddFirst(t *testing.T) {
	const name = "_validation-persist.nas.home.test"
	servers := func(target string, fromWildcard bool) []propagation.ServerReport {
		return []propagation.ServerReport{{Name: name, Alias: target, FromWildcard: fromWildcard, Verdict: propagation.VerdictNo}}
	}
	for what, c := range map[string]struct {
		report      propagation.Report
		name, first string
	}{
		"wildcard": {propagation.Report{Name: name, Shadows: "first add this", Servers: servers("box.dyn.test.", true)}, name, "first add this"},
		"set":      {propagation.Report{Name: name, Servers: servers("v.home.test.", false)}, "v.home.test", ""},
		"none":     {propagation.Report{Name: name}, name, ""},
	} {
		core, logs := observer.New(zap.WarnLevel)
		hold := &acmepersist.Hold{Watch: &acmepersist.Watch{Report: c.report}}
		entryOfLog{record: acmepersist.Record{Name: name, Value: "ca.example"}, hold: hold}.write(zap.New(core))
		if logs.Len() != 1 {
			t.Fatalf("%s: %d lines", what, logs.Len())
		}
		fields := logs.All()[0].ContextMap()
		first, _ := fields["first"].(string)
		if fields["name"] != c.name || first != c.first {
			t.Errorf("%s: %v", what, fields)
		}
	}
}

// A record that is complete is not asked for any more, whatever its domain waits for then.
func TestCompleteRecordIsNotAskedFor(t *testing.T) {
	for what, r := range map[string]acmepersist.Reason{"the CA decides": acmepersist.ReasonProcessing, "the CA refuses": acmepersist.ReasonRejected} {
		for _, isSeen := range []bool{true, false} { // by the watch, or by the attempt only
			inBubble(t, func(t *testing.T, w *world) {
				o := w.configure("a", "a.test")
				defer w.end(o)
				h := absent("a.test", "v")
				w.again(t, o, h)
				time.Sleep(5 * time.Minute)
				if isSeen {
					w.show(o, "a.test", propagation.StatusReady)
				}
				next := held("a.test", time.Now().Add(6*time.Hour))
				next.Reason, next.Record, next.Account = r, h.Record, h.Account
				w.change(o, "a.test", func(e *entry) { e.retryAt, e.readyAt, e.busyUntil = time.Time{}, time.Time{}, time.Time{} })
				w.again(t, o, next)
				w.logs.TakeAll()
				time.Sleep(5 * time.Hour)
				synctest.Wait()
				if n := w.logs.FilterMessageSnippet("publish this TXT record").Len(); n > 0 || len(w.announcements.byRecord) > 0 {
					t.Errorf("%s, seen %v: the record is asked for %d times", what, isSeen, n)
				}
			})
		}
	}
}

// While DNS does not answer nobody knows whether the record is missing: it is asked for once DNS shows that it is.
func TestBlockedRecordIsAskedForLater(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		o := w.configure("a")
		defer w.end(o)
		const text = "publish this TXT record once"
		asked := func() int {
			time.Sleep(announceWindow + time.Second)
			synctest.Wait()
			return w.logs.Filter(func(e observer.LoggedEntry) bool { return strings.HasPrefix(e.Message, text) }).Len()
		}
		hold := missing("a.test", "v")
		hold.Reason, hold.Watch.Report.Status = acmepersist.ReasonBlocked, propagation.StatusBlocked
		_ = w.attempt(t.Context(), o, "a.test", hold)
		if n := asked(); n != 0 {
			t.Errorf("it is asked for %d times while DNS does not answer", n)
		}
		lines := w.logs.FilterMessage(waitText).All()
		if len(lines) != 1 || lines[0].ContextMap()["value"] != "v" || lines[0].ContextMap()["name"] != "_validation-persist.a.test" {
			t.Errorf("whoever needs the record is shown %v", lines)
		}
		for range 3 {
			w.show(o, "a.test", propagation.StatusAbsent)
		}
		if n := asked(); n != 1 {
			t.Errorf("it is asked for %d times once DNS answers, want once", n)
		}
	})
}
