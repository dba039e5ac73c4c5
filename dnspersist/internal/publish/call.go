package publish

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// DefaultTimeout is how long one call of a provider may take.
const DefaultTimeout = 2 * time.Minute

// callGrace is how long a call that was cancelled has to end and say what came of it.
const callGrace = time.Second

// RunsOnError says that a call of a provider was given up and has not ended: its client obeys neither
// cancellation nor time-outs. What it still does cannot be known.
type RunsOnError struct {
	Err error
	// Ended is closed once the call has ended after all.
	Ended <-chan struct{}
}

func (e *RunsOnError) Error() string {
	return fmt.Sprintf("%v, and its call runs on although it was cancelled", e.Err)
}

func (e *RunsOnError) Unwrap() error { return e.Err }

// Call runs a call of a provider, which has to end in time: some clients have no time-out of
// their own, and an API that accepts and never answers would hold the locks around it for ever.
// One that does not even end when it is cancelled is left to itself; the error is a RunsOnError then.
func Call[T any](ctx context.Context, limit time.Duration, fn func(ctx context.Context) (T, error)) (T, error) {
	limit = or(limit, DefaultTimeout)
	within, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var value T
	var err error
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer func() {
			if p := recover(); p != nil {
				err = fmt.Errorf("the provider's code has panicked: %v", p)
			}
		}()
		value, err = fn(within)
	}()
	select {
	case <-ended:
	case <-within.Done():
		grace := time.NewTimer(callGrace)
		defer grace.Stop()
		select {
		case <-ended:
		case <-grace.C:
			var none T
			return none, &RunsOnError{Err: inTime(ctx, within, within.Err(), limit), Ended: ended}
		}
	}
	return value, inTime(ctx, within, err, limit)
}

// inTime says of an error that it comes from the limit, if it does.
func inTime(ctx, within context.Context, err error, limit time.Duration) error {
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
