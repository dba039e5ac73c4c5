package acmepersist

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
)

func TestInParallel(t *testing.T) {
	var sum atomic.Int64
	if err := inParallel(t.Context(), 1000, func(i int) error { sum.Add(int64(i)); return nil }); err != nil || sum.Load() != 999*1000/2 {
		t.Errorf("%v, %d", err, sum.Load())
	}
	if err := inParallel(t.Context(), 0, func(int) error { return errors.New("called") }); err != nil {
		t.Error(err)
	}
	bad, calls := errors.New("bad"), atomic.Int64{}
	err := inParallel(t.Context(), 100_000, func(i int) error {
		calls.Add(1)
		if i == 10 {
			return bad
		}
		return nil
	})
	if !errors.Is(err, bad) || calls.Load() == 100_000 {
		t.Errorf("%v after %d calls", err, calls.Load())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := inParallel(ctx, 10, func(int) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
