package ask

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// Who would have to wait for longer than there is time gets an error at once, and takes nothing from
// the others.
func TestLimiterThatIsInDebt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLookLimiter()
		for range 100 * lookRate {
			l.server("192.0.2.1:53").Reserve()
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		began, left := time.Now(), l.Left()
		if err := l.wait(ctx, "192.0.2.1:53"); !errors.Is(err, ErrNotAsked) || time.Since(began) > 0 || l.Left() < left {
			t.Errorf("after %s: %v, %v of %v left", time.Since(began), err, l.Left(), left)
		}
		if err := l.wait(ctx, "192.0.2.2:53"); err != nil || time.Since(began) > 0 {
			t.Errorf("another server is not asked: %v", err)
		}
	})
}
