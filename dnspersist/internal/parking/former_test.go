package parking

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
)

// What the watch of a former record reports says nothing of the new one.
func TestReportOfAFormerRecord(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		o := w.configure("a")
		defer w.end(o)
		w.attempt(t.Context(), o, "a.test", missing("a.test", "old"))
		w.show(o, "a.test", propagation.StatusReady)
		synctest.Wait()
		a, err := w.Begin(t.Context(), o, "a.test")
		if err != nil {
			t.Fatal(err)
		}
		late := missing("a.test", "new")
		time.Sleep(time.Second)
		w.show(o, "a.test", propagation.StatusReady) // of the old record
		a.Settle(t.Context(), late)
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if a, err := w.Begin(t.Context(), o, "a.test"); err == nil && a.Seen != nil && a.Seen.Status == propagation.StatusReady {
			t.Errorf("the attempt for the new record is given the old one's report")
		}
	})
}

// A CA that is down takes neither the watch nor the announcement of a record away.
func TestRecordWhileTheCAIsDown(t *testing.T) {
	for _, chain := range []bool{false, true} {
		inBubble(t, func(t *testing.T, w *world) {
			o := w.configure("a", "a.test")
			o.chain = chain
			defer w.end(o)
			settle := func(h *acmepersist.Hold) {
				if w.entryOf(o, "a.test") != nil {
					w.change(o, "a.test", func(e *entry) { e.retryAt = time.Time{} })
				}
				a, err := w.Begin(t.Context(), o, "a.test")
				if err != nil {
					t.Fatal(err)
				}
				a.Settle(t.Context(), h)
				time.Sleep(5 * time.Second)
				synctest.Wait()
			}
			for range 4 {
				settle(missing("a.test", "v"))
				down := held("a.test", time.Now().Add(time.Minute))
				down.Reason = acmepersist.ReasonCADown
				settle(down)
			}
			if n := w.logs.FilterMessageSnippet("publish this TXT").Len(); n != 1 {
				t.Errorf("in a chain %v: the record is announced %d times", chain, n)
			}
		})
	}
}

// A domain that another issuer of a chain serves is served also after a reload.
func TestOtherIssuerServesAfterAReload(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		o := w.configure("a", "a.test")
		o.chain = true
		w.attempt(t.Context(), o, "a.test", missing("a.test", "v"))
		w.Served(o.configuration, "a.test", "other")
		n := w.configure("a", "a.test")
		n.chain = true
		defer w.end(n)
		w.Served(n.configuration, "a.test", "other")
		w.end(o)
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		if phase := w.Of("a.test")[0].Phase; phase != PhaseServed {
			t.Errorf("it is %s", phase)
		}
	})
}
