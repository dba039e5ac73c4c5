package parking

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

// inBubble runs a test by a clock of its own, with a registry that is closed at its end.
func inBubble(t *testing.T, test func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.Close()
		test(t, w)
	})
}

// A domain that waits is answered from memory until its time has come, and then retried once.
func TestHeldUntil(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		o := w.configure("a")
		defer w.end(o)
		hold := held("a.test", time.Now().Add(time.Hour))
		a, err := w.Begin(t.Context(), o, "a.test")
		if err != nil {
			t.Fatal(err)
		}
		if !a.Settle(t.Context(), hold) {
			t.Error("CertMagic would try it again")
		}
		for range 3 {
			if _, err := w.Begin(t.Context(), o, "a.test"); !errors.Is(err, errWait) {
				t.Errorf("it is answered with %v", err)
			}
		}
		time.Sleep(time.Hour - time.Second)
		if synctest.Wait(); o.retries() != 0 {
			t.Error("it is retried before its time")
		}
		time.Sleep(2 * time.Second)
		if synctest.Wait(); o.retries() != 1 {
			t.Errorf("it is retried %d times at its time", o.retries())
		}
		if a, err = w.Begin(t.Context(), o, "a.test"); err != nil {
			t.Fatalf("the attempt of the retry is answered with %v", err)
		}
		a.Settle(t.Context(), nil)
		if len(w.Snapshot()) != 0 {
			t.Errorf("with its certificate it is still known: %+v", w.Snapshot())
		}
	})
}

// What the watch shows is given to the attempt, and the record on every server has it retried at once.
func TestRecordAppears(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		o := w.configure("a")
		defer w.end(o)
		if err := w.attempt(t.Context(), o, "a.test", missing("a.test", "v")); err == nil {
			t.Fatal("it does not wait")
		}
		w.show(o, "a.test", propagation.StatusPartial)
		if _, err := w.Begin(t.Context(), o, "a.test"); err == nil {
			t.Error("it does not wait for the last server")
		}
		w.show(o, "a.test", propagation.StatusReady)
		if synctest.Wait(); o.retries() != 1 {
			t.Fatalf("it is retried %d times", o.retries())
		}
		a, err := w.Begin(t.Context(), o, "a.test")
		if err != nil || a.Seen == nil || a.Seen.Status != propagation.StatusReady {
			t.Fatalf("the attempt is given %+v, %v", a, err)
		}
		// it comes to an end without a certificate, for another reason
		a.Settle(t.Context(), held("a.test", time.Now().Add(time.Hour)))
		if _, err := w.Begin(t.Context(), o, "a.test"); !errors.Is(err, errWait) {
			t.Errorf("it is answered with %v", err)
		}
	})
}

// Where the watch sees the record complete while an attempt decides by its older look, the newer
// report counts, and the domain is retried at once.
func TestSettleKeepsTheNewerReport(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		o := w.configure("a")
		defer w.end(o)
		if err := w.attempt(t.Context(), o, "a.test", missing("a.test", "v")); err == nil {
			t.Fatal("it does not wait")
		}
		w.change(o, "a.test", func(e *entry) { e.retryAt = time.Time{} }) // its time has come
		a, err := w.Begin(t.Context(), o, "a.test")
		if err != nil {
			t.Fatal(err)
		}
		late := missing("a.test", "v")
		time.Sleep(time.Second)
		w.show(o, "a.test", propagation.StatusReady)
		if synctest.Wait(); o.retries() != 0 {
			t.Error("a second job is begun beside the attempt")
		}
		a.Settle(t.Context(), late)
		time.Sleep(2 * time.Second)
		if synctest.Wait(); o.retries() != 1 {
			t.Errorf("it is retried %d times after the attempt", o.retries())
		}
		if a, err := w.Begin(t.Context(), o, "a.test"); err != nil || a.Seen == nil || a.Seen.Status != propagation.StatusReady {
			t.Errorf("the next attempt is given %+v, %v", a, err)
		}
	})
}

// Beside other issuers a record is announced, and nothing waits: the next issuer has its turn.
func TestChainIsAnnouncedOnly(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		o := w.configure("a", "a.test")
		defer func() { w.end(o) }()
		o.chain = true
		for range 2 {
			a, err := w.Begin(t.Context(), o, "a.test")
			if err != nil {
				t.Fatalf("it is answered with %v", err)
			}
			if a.Settle(t.Context(), missing("a.test", "v")) {
				t.Error("CertMagic's job is ended for the other issuers too")
			}
		}
		time.Sleep(announceWindow + time.Second)
		if synctest.Wait(); w.logs.FilterMessageSnippet("publish this TXT record once").Len() != 1 {
			t.Errorf("it is announced as %v", w.logs.All())
		}
		all := w.Of("a.test")
		if len(all) != 1 || all[0].Phase != PhaseWaiting || !all[0].IsCertMagics || !all[0].Next.IsZero() {
			t.Errorf("its status is %+v", all)
		}
		next := w.configure("a", "a.test")
		next.chain = true
		w.end(o)
		time.Sleep(orphanFor + time.Second)
		synctest.Wait()
		if len(w.Of("a.test")) != 1 {
			t.Error("a configuration that manages it has not taken it over")
		}
		o = w.configure("a")
		w.end(next)
		time.Sleep(orphanFor + time.Second)
		if synctest.Wait(); len(w.Of("a.test")) != 0 {
			t.Error("it is announced for nobody")
		}
	})
}

// A domain that another issuer serves is one with a certificate, and its record is asked for all the same.
func TestOtherIssuerServes(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		o := w.configure("a", "a.test")
		o.chain = true
		if err := w.attempt(t.Context(), o, "a.test", missing("a.test", "v")); err == nil {
			t.Fatal("there is a certificate")
		}
		w.Served(o.configuration, "a.test", "internal")
		all := w.Of("a.test")
		if len(all) != 1 || all[0].Phase != PhaseServed || all[0].Issuer != "internal" || all[0].Reason != acmepersist.ReasonAbsent || len(w.announcements.byRecord) != 1 {
			t.Errorf("its status is %+v, announced are %v", all, w.announcements.byRecord)
		}
		w.Failed(o.configuration, "a.test", errors.New("a renewal"))
		w.Failed(o.configuration, "b.test", errors.New("no certificate"))
		if a, b := w.Of("a.test")[0], w.Of("b.test")[0]; a.Phase != PhaseServed || b.Phase != PhaseFailed || !b.IsCertMagics {
			t.Errorf("after failures: %+v, %+v", a, b)
		}
		w.end(o)
		if all := w.Snapshot(); len(all) != 1 || all[0].Phase != PhaseWaiting {
			t.Errorf("after the end: %+v", all)
		}
	})
}

// The apex and its wildcard, and two configurations of one domain, are asked for one record in one line.
func TestOneAnnouncementARecord(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		o, other := w.configure("a"), w.configure("b")
		defer w.end(o)
		defer w.end(other)
		apex, wildcard := missing("a.test", "v"), missing("a.test", "v")
		wildcard.Domain = "*.a.test"
		for _, h := range []*acmepersist.Hold{apex, wildcard} {
			_ = w.attempt(t.Context(), o, h.Domain, h)
		}
		_ = w.attempt(t.Context(), other, "a.test", apex)
		time.Sleep(announceWindow + time.Second)
		synctest.Wait()
		lines := w.logs.FilterMessageSnippet("publish this TXT record once").All()
		if len(lines) != 1 || len(lines[0].ContextMap()["domains"].([]any)) != 2 {
			t.Fatalf("the log has %v", lines)
		}
		if all := w.Snapshot(); len(all) != 2 {
			t.Errorf("two configurations of a domain are not joined: %+v", all)
		}
		time.Sleep(announceAgain + 10*time.Minute) // it is looked for in wrong places first
		synctest.Wait()
		if n := w.logs.FilterMessageSnippet("publish this TXT record once").Len(); n != 2 {
			t.Errorf("after an hour it was asked for %d times", n)
		}
		changed := missing("a.test", "w")
		_ = w.attempt(acmepersist.InBackground(t.Context()), w.configure("c"), "a.test", changed)
		w.mu.Lock()
		defer w.unlock()
		for record, n := range w.announcements.byRecord {
			domains := n.logEntry(record).domains
			if want := map[string]string{"v": "*.a.test", "w": "a.test"}[record.Value]; !slices.Equal(domains, []string{want}) {
				t.Errorf("%s is asked for %q", record.Value, domains)
			}
		}
	})
}

// A reload restarts no wait, and a configuration that has ended gets hold of nothing any more: jobs of
// CertMagic outlive it. What nobody wants ends after two minutes.
func TestWaitsOutliveReloads(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		old := w.configure("a")
		_ = w.attempt(t.Context(), old, "a.test", missing("a.test", "v"))
		e := w.entryOf(old, "a.test")
		time.Sleep(time.Hour)
		now := w.configure("a")
		if _, err := w.Begin(t.Context(), now, "a.test"); !errors.Is(err, errWait) {
			t.Errorf("after the reload it is answered with %v", err)
		}
		w.end(old)
		if _, err := w.Begin(t.Context(), old, "a.test"); !errors.Is(err, errWait) {
			t.Errorf("a job of the ended configuration is answered with %v", err)
		}
		_ = w.attempt(t.Context(), old, "b.test", missing("b.test", "v"))
		if w.entryOf(now, "a.test") != e || e.newest() != Owner(now) || w.entryOf(now, "b.test") != nil {
			t.Error("a configuration that has ended owns a domain")
		}
		if status := w.Of("a.test")[0]; time.Since(status.Since) != time.Hour {
			t.Errorf("it waits for %s", time.Since(status.Since))
		}
		w.end(now)
		time.Sleep(orphanFor - time.Second)
		if synctest.Wait(); w.entryOf(now, "a.test") == nil {
			t.Error("it is forgotten before another configuration can ask")
		}
		time.Sleep(2 * time.Second)
		if synctest.Wait(); w.entryOf(now, "a.test") != nil || len(w.announcements.byRecord) != 0 {
			t.Error("it waits for nobody")
		}
	})
}

// A wait that is not for DNS is for somebody to act, and a reload may be just that; a limit of the CA is
// none.
func TestReloadTriesAgainWhatSomebodyHasActedOn(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		old := w.configure("a")
		limit := held("limited.test", time.Now().Add(time.Hour))
		limit.Reason = acmepersist.ReasonRateLimited
		_ = w.attempt(t.Context(), old, "a.test", held("a.test", time.Now().Add(time.Hour)))
		_ = w.attempt(t.Context(), old, "limited.test", limit)
		now := w.configure("a")
		defer w.end(now)
		if _, err := w.Begin(t.Context(), now, "a.test"); err != nil {
			t.Errorf("it is answered with %v", err)
		}
		if _, err := w.Begin(t.Context(), now, "limited.test"); err == nil {
			t.Error("the limit of a CA is not kept over a reload")
		}
		w.end(old)
	})
}

// A domain is retried through the newest configuration that lives, also where that ends just then.
func TestRetryPassesByWhatEnds(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		live, ending := w.configure("a"), w.configure("a")
		defer w.end(live)
		_ = w.attempt(t.Context(), live, "a.test", missing("a.test", "v"))
		_, _ = w.Begin(t.Context(), ending, "a.test")
		ending.cancel() // and the registry does not know it yet
		w.show(live, "a.test", propagation.StatusReady)
		if synctest.Wait(); live.retries() != 1 || ending.retries() != 0 {
			t.Errorf("it is retried %d times through the one that lives, %d through the other", live.retries(), ending.retries())
		}
		w.end(ending)
	})
}

// A domain that is put behind another issuer waits no more: that one serves it.
func TestHeldDomainComesIntoAChain(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		old := w.configure("a")
		_ = w.attempt(t.Context(), old, "a.test", missing("a.test", "v"))
		chain := w.configure("a", "a.test")
		chain.chain = true
		if err := w.attempt(t.Context(), chain, "a.test", missing("a.test", "v")); errors.Is(err, errWait) && w.entryOf(chain, "a.test").isHeld {
			t.Error("it waits in the chain")
		}
		w.end(old)
		time.Sleep(orphanFor + time.Second)
		synctest.Wait()
		if w.entryOf(old, "a.test") != nil {
			t.Error("it goes on waiting")
		}
		if len(w.announcements.byRecord) != 1 {
			t.Error("its record is not asked for any more")
		}
		w.end(chain)
	})
}

// A failure of another kind counts, is answered with, and leaves the wait as it is.
func TestFailureOfADomainThatWaits(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		o := w.configure("a")
		defer w.end(o)
		failed := errors.New("HTTP 500")
		a, err := w.Begin(t.Context(), o, "a.test")
		if err != nil {
			t.Fatal(err)
		}
		if a.Settle(t.Context(), failed) {
			t.Error("a domain that does not wait is left to nobody")
		}
		_ = w.attempt(t.Context(), o, "a.test", missing("a.test", "v"))
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		for _, ctx := range []context.Context{ended, t.Context(), t.Context()} {
			w.change(o, "a.test", func(e *entry) { e.retryAt = time.Time{} })
			time.Sleep(5 * time.Minute)
			a, err := w.Begin(t.Context(), o, "a.test")
			if err != nil {
				t.Fatal(err)
			}
			if a.Settle(ctx, failed) != (ctx != ended) {
				t.Error("CertMagic would begin a second job, or the end of a configuration counts as a failure")
			}
			if a.Settle(ctx, failed) {
				t.Error("an attempt has ended twice")
			}
		}
		if _, err := w.Begin(t.Context(), o, "a.test"); !errors.Is(err, failed) {
			t.Errorf("it is answered with %v", err)
		}
		status := w.Of("a.test")[0]
		if wait := time.Until(status.Next); wait != 2*time.Minute || !strings.Contains(status.Err.Error(), "500") {
			t.Errorf("it is retried after %s: %+v", wait, status)
		}
		before := o.retries()
		w.show(o, "a.test", propagation.StatusReady)
		if synctest.Wait(); o.retries() != before {
			t.Error("it is retried before its time")
		}
		time.Sleep(2*time.Minute + time.Second)
		if synctest.Wait(); o.retries() != before+1 {
			t.Errorf("it is retried %d times at its time", o.retries()-before)
		}
	})
}

// Whoever comes later is told of what waits already, and not again while nothing changes.
func TestSubscribeToWhatWaits(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		o := w.configure("a", "a.test")
		defer w.end(o)
		_ = w.attempt(t.Context(), o, "a.test", missing("a.test", "v"))
		var heard int
		defer w.Subscribe(func(string, []Status) { heard++ })()
		w.show(o, "a.test", propagation.StatusAbsent)
		if heard != 1 {
			t.Errorf("it is told %d times", heard)
		}
	})
}

// Subscribers hear of each change of the phase, the reason or the fault, in order, and of nothing else.
func TestSubscribe(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		o := w.configure("a", "a.test")
		defer w.end(o)
		var heard []string
		cancel := w.Subscribe(func(domain string, now []Status) {
			text := domain
			for _, s := range now {
				text += " " + string(s.Phase) + " " + string(s.Reason)
			}
			heard = append(heard, strings.TrimSpace(text))
		})
		a, err := w.Begin(t.Context(), o, "a.test")
		if err != nil {
			t.Fatal(err)
		}
		hold, code := missing("a.test", "v"), record.Code("")
		hold.Watch.Find = func(propagation.Report) acmepersist.Finding {
			if code == "" {
				return acmepersist.Finding{}
			}
			return acmepersist.Finding{Code: code, Values: []acmepersist.ValueVerdict{{Code: code}}}
		}
		a.Settle(t.Context(), hold)
		w.show(o, "a.test", propagation.StatusAbsent)
		for _, code = range []record.Code{record.CodeWrongAccount, record.CodeWrongAccount, record.CodeExpired, ""} {
			w.show(o, "a.test", propagation.StatusAbsent)
		}
		w.show(o, "a.test", propagation.StatusPartial)
		w.show(o, "a.test", propagation.StatusConfirming)
		w.show(o, "a.test", propagation.StatusReady)
		synctest.Wait()
		if a, err = w.Begin(t.Context(), o, "a.test"); err != nil {
			t.Fatal(err)
		}
		a.Progress(acmepersist.PhaseOrdering)
		a.Settle(t.Context(), nil)
		w.Served(o.configuration, "a.test", "ca.test-dir")
		cancel()
		w.Served(o.configuration, "b.test", "ca.test-dir")
		want := []string{
			"a.test looking", "a.test waiting record_absent", "a.test waiting record_wrong", "a.test waiting record_wrong", "a.test waiting record_absent",
			"a.test waiting record_partial", "a.test waiting record_confirming", "a.test waiting record_confirming",
			"a.test looking record_confirming", "a.test ordering record_confirming", "a.test", "a.test served",
		}
		if !slices.Equal(heard, want) {
			t.Errorf("heard:\n%s\nwant:\n%s", strings.Join(heard, "\n"), strings.Join(want, "\n"))
		}
	})
}
