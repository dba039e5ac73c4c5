package acmepersist

import (
	"crypto/x509"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
)

const (
	// askInterval is the longest time between two attempts that the clock asks for
	// against the gate's advice.
	askInterval = 6 * time.Hour
	// minAskInterval is the shortest: certificates of minutes exist in labs only.
	minAskInterval = time.Minute
	// lastHours is when a certificate is running out however long its renewal
	// window is; of a short-lived one, a quarter of its life.
	lastHours = 48 * time.Hour
	// PartialPatience is how long a first certificate waits for the last servers.
	PartialPatience = time.Hour
)

// clock decides when the CA is asked whatever DNS shows. A share of servers that
// is stale for ever passes every other try at a CA; a gate that never opens would
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
		interval = min(max(left/8, orDefault(c.shortest, minAskInterval)), askInterval)
	case !c.partialSince.IsZero():
		at = c.partialSince.Add(PartialPatience)
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
func (c clock) waitUntil(settling bool, began time.Time) time.Time {
	switch {
	case c.certificate == nil:
		return time.Time{}
	case settling:
		return began.Add(max(c.certificate.NotAfter.Sub(began)/4, propagation.DefaultSettle))
	}
	return c.due()
}

// left is the remaining life at which a certificate counts as running out: half of
// its renewal window, and at least 48 hours, or a quarter of a short life.
func (c clock) left() time.Duration {
	life := c.certificate.NotAfter.Sub(c.certificate.NotBefore)
	window := time.Duration(float64(life) * c.ratio)
	return max(window/2, min(lastHours, life/4))
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
