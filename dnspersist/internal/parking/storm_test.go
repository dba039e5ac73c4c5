package parking

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
)

// After an attempt for a complete record that came to nothing the next one has its time. That the record is complete
// at each poll has none made before, nor do visitors.
func TestCompleteRecordIsNotTriedWithoutEnd(t *testing.T) {
	broken := errors.New("HTTP 500")
	for what, tc := range map[string]struct {
		settle func() error // how an attempt ends; nil if none comes to the issuer
		obtain error        // how CertMagic's does
		tries  int          // in an hour
	}{
		"an error":                {func() error { return broken }, broken, len(failureWaits) - 1},
		"another error each time": {func() error { return fmt.Errorf("at %s: %w", time.Now(), broken) }, broken, len(failureWaits) - 1},
		"a CA is down": {func() error {
			down := held("a.test", time.Now().Add(time.Minute))
			down.Reason = acmepersist.ReasonCADown
			return down
		}, errWait, 55},
		"an error before an issuer is asked": {nil, broken, len(failureWaits) - 1},
		"nothing is done":                    {nil, nil, 59},
	} {
		t.Run(what, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				o := w.configure("a", "a.test")
				defer w.end(o)
				o.obtain = func(domain string) (bool, error) {
					if tc.settle != nil {
						a, err := w.Begin(acmepersist.InBackground(context.Background()), o, domain)
						if err != nil {
							t.Errorf("it is retried in vain: %v", err)
							return false, err
						}
						time.Sleep(6 * time.Second) // requests are repeated that long
						a.Settle(context.Background(), tc.settle())
					}
					return false, tc.obtain
				}
				_ = w.attempt(t.Context(), o, "a.test", missing("a.test", "v"))
				for range 3600 {
					w.show(o, "a.test", propagation.StatusReady)
					if s := w.Of("a.test")[0]; tc.settle != nil && time.Now().Before(s.Next) && o.retries() > 0 {
						if _, err := w.Begin(t.Context(), o, "a.test"); err == nil {
							t.Fatalf("a visitor has it tried %s before its time", time.Until(s.Next))
						}
					}
					time.Sleep(time.Second)
					synctest.Wait()
				}
				if n := o.retries(); n < tc.tries-1 || n > tc.tries+1 {
					t.Errorf("it is tried %d times in an hour, want about %d", n, tc.tries)
				}
			})
		})
	}
}

// A domain whose attempt has failed is told as failed, with the error, whatever its record is like; not any more
// once another attempt has found what it waits for.
func TestFailedAttemptIsTold(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		o := w.configure("a", "a.test")
		defer w.end(o)
		_ = w.attempt(t.Context(), o, "a.test", missing("a.test", "v"))
		w.show(o, "a.test", propagation.StatusReady)
		broken := errors.New("HTTP 403")
		_ = w.attempt(t.Context(), o, "a.test", broken)
		w.show(o, "a.test", propagation.StatusReady)
		s := w.Of("a.test")[0]
		if x := s.Explain(); s.Phase != PhaseFailed || s.Severity(time.Now()) != SeverityError || x.Text != broken.Error() || x.Code != string(PhaseFailed) || time.Until(s.Next) != time.Minute {
			t.Errorf("it is %s in %s: %+v", s.Phase, time.Until(s.Next), x)
		}
		time.Sleep(time.Minute + 2*time.Second)
		synctest.Wait()
		w.change(o, "a.test", func(e *entry) { e.busyUntil = time.Time{} })
		down := held("a.test", time.Now().Add(time.Minute))
		down.Reason = acmepersist.ReasonCADown
		_ = w.attempt(t.Context(), o, "a.test", down)
		w.show(o, "a.test", propagation.StatusReady)
		s = w.Of("a.test")[0]
		if x := s.Explain(); s.Phase != PhaseHeld || x.Code != string(down.Reason) || s.Severity(time.Now()) != SeverityInfo || !s.IsComplete() {
			t.Errorf("it is %s: %+v", s.Phase, x)
		}
	})
}

// The end of a configuration, or of a visit, is not a failure of the attempt that it cuts short; that it takes too long is.
func TestAttemptThatIsCutShort(t *testing.T) {
	for cause, want := range map[error]Phase{context.Canceled: PhaseWaiting, ErrTookLong: PhaseFailed} {
		inBubble(t, func(t *testing.T, w *world) {
			o := w.configure("a", "a.test")
			defer w.end(o)
			_ = w.attempt(t.Context(), o, "a.test", missing("a.test", "v"))
			w.show(o, "a.test", propagation.StatusReady)
			ctx, cancel := context.WithCancelCause(t.Context())
			a, err := w.Begin(ctx, o, "a.test")
			if err != nil {
				t.Fatal(err)
			}
			cancel(cause)
			if isHeld := a.Settle(ctx, cause); isHeld != (want == PhaseFailed) || w.Of("a.test")[0].Phase != want {
				t.Errorf("%v: it is %s", cause, w.Of("a.test")[0].Phase)
			}
		})
	}
}
