package acmepersist

import (
	"cmp"
	"crypto/x509"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
)

// When a domain is tried again. What one request is repeated for is the business of its own place, and
// how often a DNS provider is asked as well.
const (
	// ReportFresh is how long it counts what a look at DNS has shown.
	ReportFresh = time.Minute
	// HeldAtMost is the longest time between two attempts, whatever a domain waits for.
	HeldAtMost = 6 * time.Hour
	// RetryAgain is when a domain is tried again whose last attempt ended without a word.
	RetryAgain = time.Hour

	// partialPatience is how long a first certificate waits for the last servers, and for CAA
	// records that seem to forbid it.
	partialPatience = time.Hour
	// askInterval is the longest time between two attempts against what DNS advises.
	askInterval = 6 * time.Hour
	// minAskInterval is the shortest: certificates of minutes exist in labs only.
	minAskInterval = time.Minute
	// lastHours is when a certificate is running out however long its renewal
	// window is; of a short-lived one, a quarter of its life.
	lastHours = 48 * time.Hour
	// inlineProcessing is how long an attempt waits for a CA that takes its time over a validation.
	inlineProcessing = 5 * time.Minute
	// longestLook is the longest time between two looks of Hold.Wait.
	longestLook = 10 * time.Minute

	// rejectedRetry is when the CA is asked again that has refused a name although DNS showed nothing
	// wrong, where nothing else says when.
	rejectedRetry = time.Minute
	// accountRetry is when an account that could not be used is tried again: somebody has to act.
	accountRetry = time.Hour
	// caaRetry is how often CAA records that forbid the certificate are looked at again.
	caaRetry = 30 * time.Minute
	// downFirst and downMost bound how long a CA that is down is left alone.
	downFirst, downMost = time.Minute, time.Hour
	// processingMost is the longest time between two looks at an order that the CA is at work on.
	processingMost = 10 * time.Minute
	// overtakenRetry is when CertMagic is asked to take what another process has obtained.
	overtakenRetry = time.Second
	// notOfferedRetry is how long a CA's "no" is believed for first certificates,
	// notOfferedRenewalRetry for renewals: only an order shows whether a CA of the
	// deployed drafts has begun to offer the challenge.
	notOfferedRetry, notOfferedRenewalRetry = 24 * time.Hour, time.Hour
)

// afterDown is how long a CA is left alone that has been down for so long: half of that. A certificate
// that ends in left waits an eighth of it at most.
func afterDown(down, left time.Duration) time.Duration {
	wait := min(max(down/2, downFirst), downMost)
	if left > 0 {
		wait = min(wait, max(left/8, 10*time.Second))
	}
	return wait
}

// afterProcessing is how long an order is left alone that the CA has been at work on for so long.
func afterProcessing(since, shortest time.Duration) time.Duration {
	return min(max(since/4, shortest), processingMost)
}

// clock says when the CA is asked whatever DNS shows. A share of servers that
// is stale for ever passes every other try at a CA; waiting for all of them would
// pass none.
type clock struct {
	// certificate is the one to be renewed, nil for a first one.
	certificate *x509.Certificate
	// ratio is the part of a certificate's life that is its renewal window.
	ratio float64
	// partialSince is since when some servers, but not all, show the record.
	partialSince time.Time
	// lastAttempt is when the CA was last asked in vain.
	lastAttempt time.Time
	// shortest is minAskInterval unless it is set.
	shortest time.Duration
}

// due returns when the CA is to be asked anyway, zero if never.
func (c clock) due() time.Time {
	var at time.Time
	interval := askInterval
	switch {
	case c.certificate != nil:
		left := c.left()
		at = c.certificate.NotAfter.Add(-left)
		interval = min(max(left/8, cmp.Or(c.shortest, minAskInterval)), askInterval)
	case !c.partialSince.IsZero():
		at = c.partialSince.Add(partialPatience)
	default:
		return time.Time{}
	}
	if next := c.lastAttempt.Add(interval); !c.lastAttempt.IsZero() && next.After(at) {
		return next
	}
	return at
}

// waitUntil is until when an attempt that has begun then may wait within itself: for servers
// that lack the record until the CA is to be asked anyway, for a record to settle that all of
// them show a quarter of the remaining life. It is zero for a first certificate, which has time.
func (c clock) waitUntil(confirming bool, began time.Time) time.Time {
	switch {
	case c.certificate == nil:
		return time.Time{}
	case confirming:
		return began.Add(max(c.certificate.NotAfter.Sub(began)/4, propagation.DefaultSettle))
	}
	return c.due()
}

// Urgent is from when on a certificate counts as running out; ratio is the part of its life in which it is
// renewed.
func Urgent(cert *x509.Certificate, ratio float64) time.Time {
	return cert.NotAfter.Add(-clock{certificate: cert, ratio: ratio}.left())
}

// left is the remaining life at which a certificate counts as running out: half of
// its renewal window, and at least 48 hours, or a quarter of a short life.
func (c clock) left() time.Duration {
	life := c.certificate.NotAfter.Sub(c.certificate.NotBefore)
	window := time.Duration(float64(life) * c.ratio)
	return max(window/2, min(lastHours, life/4))
}

// later is the later one of two times.
func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
