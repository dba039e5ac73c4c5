package acmepersist

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"
)

const (
	// minInterval is the shortest time between two requests for the same thing,
	// whatever the CA's Retry-After says.
	minInterval = time.Second
	// maxRetryWait is the longest wait inside one attempt. A CA that asks for more
	// gets it between attempts.
	maxRetryWait = 2 * time.Minute
	// maxStepRetries is how often a step is tried again after a hiccup.
	maxStepRetries = 6
)

// RateLimitedError says that the CA asked to come back later than one attempt
// can wait.
type RateLimitedError struct {
	// RetryAt is when the CA may be asked again.
	RetryAt time.Time
	Err     error
}

func (e *RateLimitedError) Error() string {
	return fmt.Sprintf("the CA asks to wait until %s: %v", e.RetryAt.UTC().Format(time.RFC3339), e.Err)
}

func (e *RateLimitedError) Unwrap() error { return e.Err }

// putOff reports whether err says that the CA is not to be asked for now.
func putOff(err error) bool {
	var limited *RateLimitedError
	return errors.As(err, &limited)
}

// passing reports whether the CA's last answer says nothing of what it was asked:
// that it is overloaded or broken.
func (s *session) passing() bool {
	status, _, _ := s.wire.last()
	return status >= 500 || status == http.StatusTooManyRequests
}

// step runs fn, one exchange with the CA, and again after a hiccup that may
// pass: a lost connection, a 5xx, a 429, a nonce that did not come through. It
// obeys Retry-After. name says what is being done, for errors and logs.
func (s *session) step(ctx context.Context, name string, fn func() error) error {
	return s.stepUpTo(ctx, name, maxStepRetries, fn)
}

// stepUpTo is step with fewer repetitions.
func (s *session) stepUpTo(ctx context.Context, name string, retries int, fn func() error) error {
	for attempt := 0; ; attempt++ {
		s.wire.reset()
		err := fn()
		if err == nil {
			return nil
		}
		status, _, _ := s.wire.last()
		if ctx.Err() != nil {
			return fmt.Errorf("%s: %w", name, errors.Join(context.Cause(ctx), err))
		}
		wait, again := s.pause(err, attempt)
		if again && wait > maxRetryWait {
			return fmt.Errorf("%s: %w", name, &RateLimitedError{RetryAt: time.Now().Add(wait), Err: err})
		}
		if !again || attempt >= retries {
			return s.heedChangedKey(ctx, fmt.Errorf("%s: %w", name, err))
		}
		s.logger.Warn("ACME request failed; trying again",
			zap.String("step", name),
			zap.Int("status", status),
			zap.Int("attempt", attempt+1),
			zap.Duration("wait", wait),
			zap.Error(err))
		if err := sleep(ctx, wait); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
}

// pause says how long to wait after err, and whether trying again can help.
func (s *session) pause(err error, attempt int) (time.Duration, bool) {
	status, retryAfter, has := s.wire.last()
	backoff := minInterval << min(attempt, 4)
	var problem acme.Problem
	switch {
	case has && (status >= 500 || status == http.StatusTooManyRequests):
		return max(retryAfter, minInterval), true
	case status >= 500:
		return backoff, true
	case status == http.StatusTooManyRequests:
		// without a time this is a limit that does not pass in seconds
		return 5 * backoff, attempt < 2
	case isProblem(err, "badNonce"):
		return minInterval, true
	case errors.As(err, &problem), isUnusable(err):
		return 0, false
	case status >= 400:
		return 0, false
	default:
		// no answer, or one that was cut off
		return backoff, true
	}
}

// sleep waits for d or until ctx ends, and then returns why.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
