package ca

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/internal/walltime"
)

const (
	// MinInterval is the shortest time between two requests for the same thing,
	// whatever the CA's Retry-After is.
	MinInterval = time.Second
	// MaxInlineWait is the longest wait inside one attempt where somebody else takes the
	// name over: a longer one would hold CertMagic's job and lock for nothing. A CA that asks
	// for more gets it between attempts.
	MaxInlineWait = 10 * time.Second
	// maxRetryWait is the longest wait inside one attempt where nobody does.
	maxRetryWait = 2 * time.Minute
	// maxBackoff is the longest wait between two tries of an attempt that has a certificate
	// to lose.
	maxBackoff = 4 * time.Minute
	// MaxRetries is how often a step is tried again after a hiccup.
	MaxRetries = 6
	// RolledLately is how long after a change of key its refusal may pass: frontends of a CA
	// keep what they know of an account for some seconds. rolledPatience is how long one is
	// asked again.
	RolledLately, rolledPatience = time.Minute, 10 * time.Second
)

// Once runs fn, one exchange with the CA that is not repeated. It returns the status of the answer,
// 0 if there was none, and how long the CA asks to wait.
func (c *Client) Once(fn func() error) (status int, wait time.Duration, err error) {
	c.wire.reset()
	err = fn()
	status, wait, _ = c.wire.last()
	return status, wait, err
}

// IsBusy reports whether the CA's last answer is not about what it was asked: it is overloaded or
// broken.
func (c *Client) IsBusy() bool {
	status, _, _ := c.wire.last()
	return status >= 500 || status == http.StatusTooManyRequests
}

// Do runs fn, one exchange with the CA, and again after a hiccup that may
// pass: a lost connection, a 5xx, a 429, a nonce that did not come through. It
// obeys Retry-After. name is what is being done, for errors and logs.
func (c *Client) Do(ctx context.Context, name string, fn func() error) error {
	return c.DoUpTo(ctx, name, MaxRetries, fn)
}

// DoUpTo is Do with fewer repetitions.
func (c *Client) DoUpTo(ctx context.Context, name string, retries int, fn func() error) error {
	began := time.Now()
	for attempt := 0; ; attempt++ {
		c.wire.reset()
		err := fn()
		if err == nil {
			return nil
		}
		if unusable := c.wire.refused(); unusable != nil {
			return fmt.Errorf("%s: %w", name, unusable)
		}
		status, _, _ := c.wire.last()
		if ctx.Err() != nil {
			return fmt.Errorf("%s: %w", name, errors.Join(context.Cause(ctx), err))
		}
		wait, again := c.pause(err, attempt)
		persist := time.Now().Add(wait).Before(c.PersistUntil)
		switch {
		case c.passesAfterRollover(err, began):
			wait = MinInterval
		case again && !persist && c.IsLimited(err, wait, attempt):
			return fmt.Errorf("%s: %w", name, c.RateLimit(err, wait))
		case !again:
			return fmt.Errorf("%s: %w", name, err)
		case attempt >= retries && !persist:
			return &DownError{CA: c.server.URL, Err: fmt.Errorf("%s: %w", name, err)}
		}
		c.logger.Warn("ACME request failed; trying again",
			zap.String("step", name),
			zap.Int("status", status),
			zap.Int("attempt", attempt+1),
			zap.Duration("wait", wait),
			zap.Error(err))
		if err := c.Rest(ctx, wait); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
}

// pause returns how long to wait after err, and whether trying again can help.
func (c *Client) pause(err error, attempt int) (time.Duration, bool) {
	status, retryAfter, has := c.wire.last()
	backoff := MinInterval << min(attempt, 4)
	if !c.PersistUntil.IsZero() {
		backoff = min(MinInterval<<min(attempt, 8), maxBackoff)
	}
	var problem acme.Problem
	switch {
	case !c.wire.asked():
		return 0, false // acmez refuses what it was given
	case has && (status >= 500 || status == http.StatusTooManyRequests):
		return max(retryAfter, MinInterval), true
	case status >= 500:
		return backoff, true
	case status == http.StatusTooManyRequests:
		// without a time this is a limit that does not pass in seconds
		return 5 * backoff, true
	case IsProblem(err, "badNonce"):
		return MinInterval, true
	case errors.As(err, &problem):
		return 0, false
	case status >= 400:
		return 0, false
	default:
		// no answer, or one that was cut off
		return backoff, true
	}
}

// IsLimited reports whether the CA asks for more time than an attempt can wait.
func (c *Client) IsLimited(err error, wait time.Duration, attempt int) bool {
	status, _, has := c.wire.last()
	switch {
	case status < 500 && status != http.StatusTooManyRequests:
		return false
	case !has:
		// the first 429 without a time may be a hiccup, but not where somebody has to act
		return status == http.StatusTooManyRequests && (attempt > 0 || pageOf(err) != "")
	}
	return wait > c.server.LongestWait
}

// passesAfterRollover reports whether a signature was refused that some seconds after the
// change of the account's key will be accepted: the step began at the given time.
func (c *Client) passesAfterRollover(err error, began time.Time) bool {
	status, _, _ := c.wire.last()
	return IsProblem(err, "malformed") && status != http.StatusNotFound &&
		walltime.Since(c.RolledAt).Abs() < RolledLately && time.Since(began) < rolledPatience
}

// Rest is Sleep, with the lease of CertMagic's lock extended where the wait may be long.
func (c *Client) Rest(ctx context.Context, d time.Duration) error {
	for ; d > leaseEvery && c.LockName != ""; d -= leaseEvery {
		if err := Sleep(ctx, leaseEvery); err != nil {
			return err
		}
		c.KeepLock(ctx, c.LockName)
	}
	return Sleep(ctx, d)
}

// Sleep waits for d or until ctx ends, and then returns why.
func Sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Interval is the time until the next poll: the CA's Retry-After if it sent one,
// never under a second.
func (c *Client) Interval(own time.Duration) time.Duration {
	if _, wait, has := c.wire.last(); has {
		return min(max(wait, MinInterval), maxRetryWait)
	}
	return max(own, MinInterval)
}

const (
	// leaseEvery is how often the lease of CertMagic's lock is extended while an
	// attempt waits, leaseFor by how much: on a first attempt it is only a minute long.
	leaseEvery = 20 * time.Second
	leaseFor   = 2 * time.Minute
)

// KeepLock extends the lease of the lock that CertMagic holds for a name while it
// waits for us, where the storage gives out leases: else another node would begin the
// same work.
func (c *Client) KeepLock(ctx context.Context, name string) {
	renewer, ok := c.server.Store.Storage.(certmagic.LockLeaseRenewer)
	if !ok || time.Since(c.leased) < leaseEvery {
		return
	}
	c.leased = time.Now()
	if err := renewer.RenewLockLease(ctx, "issue_cert_"+name, leaseFor); err != nil {
		c.logger.Warn("extending the lock's lease failed; another node may begin the same work",
			zap.String("identifier", name), zap.Error(err))
	}
}
