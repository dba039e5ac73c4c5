package state

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

func TestTurns(t *testing.T) {
	var at [4]atomic.Int32
	var wg sync.WaitGroup
	for i := range 400 {
		wg.Go(func() {
			n := i % len(at)
			release, err := takeTurn(t.Context(), fmt.Sprint("test ", n))
			if err != nil {
				t.Error(err)
				return
			}
			if at[n].Add(1) != 1 {
				t.Error("two at once")
			}
			at[n].Add(-1)
			release()
		})
	}
	wg.Wait()

	release, err := takeTurn(t.Context(), "test held")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	over := errors.New("over")
	cancel(over)
	if _, err := takeTurn(ctx, "test held"); !errors.Is(err, over) {
		t.Errorf("got %v", err)
	}
	release()
	turns.mu.Lock()
	defer turns.mu.Unlock()
	for name := range turns.names {
		if strings.HasPrefix(name, "test ") {
			t.Errorf("%s is kept", name)
		}
	}
}
