package publish

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// DefaultTimeout is how long one call of a provider may take.
const DefaultTimeout = 2 * time.Minute

// Call runs a call of a provider, which has to end in time: some clients have no time-out of
// their own, and an API that accepts and never answers would hold the locks around it for ever.
//
// A provider that ignores its context still holds them. To let go of them while it runs would
// not be safe: it may still write, and one that writes a zone back whole would then undo what the
// next one has changed meanwhile.
func Call(ctx context.Context, limit time.Duration, fn func(ctx context.Context) error) error {
	limit = or(limit, DefaultTimeout)
	within, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := fn(within)
	if err != nil && ctx.Err() == nil && errors.Is(within.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("the provider did not answer within %s: look whether its API can be reached; it may have made the change all the same: %w", limit, err)
	}
	return err
}

// detached is for what has to be done even if ctx has ended, but not for ever: a call, one
// of somebody else who has the zone's lock before, and the wait for the servers.
func (w *Writer) detached(ctx context.Context) (context.Context, context.CancelFunc) {
	limit := or(w.Wait, DefaultWait) + 2*or(w.Timeout, DefaultTimeout)
	return context.WithTimeoutCause(context.WithoutCancel(ctx), limit, fmt.Errorf("it took longer than %s", limit))
}
