package acmepersist

import (
	"slices"
	"time"
)

// skew is how far the clocks of a cluster's nodes may be apart.
const skew = 10 * time.Minute

// mostNotBefore is more than the caches of a CA's resolvers are waited for.
const mostNotBefore = time.Hour

// ahead reports whether t is later than it can be, when it may lie in the future by most.
func ahead(t, now time.Time, most time.Duration) bool { return t.After(now.Add(most + skew)) }

// heal forgets times that have not come yet: the clock was ahead when they were written, and
// the name would be held up until it is as late as it seemed to be.
func (n *nameState) heal(now time.Time) {
	n.Attempts = slices.DeleteFunc(n.Attempts, func(at time.Time) bool { return ahead(at, now, 0) })
	n.Refused = slices.DeleteFunc(n.Refused, func(r refusedValue) bool { return ahead(r.At, now, 0) })
	for _, t := range []*time.Time{&n.PartialSince, &n.LookedAt} {
		if ahead(*t, now, 0) {
			*t = time.Time{}
		}
	}
	// these two are meant for the future
	if ahead(n.NotBefore, now, mostNotBefore) {
		n.NotBefore = time.Time{}
	}
	if ahead(n.CAASince, now, askInterval) {
		n.CAASince = time.Time{}
	}
}

// heal takes what lies ahead for what has just been done: that a challenge was posted would count
// for as long as the clock was ahead, and the order be waited for. It reports whether it did.
func (h *heldOrder) heal(now time.Time) (healed bool) {
	for url, at := range h.Posted {
		if ahead(at, now, 0) {
			h.Posted[url], healed = now, true
		}
	}
	if ahead(h.FinalizedAt, now, 0) {
		h.FinalizedAt, healed = now, true
	}
	return healed
}

// heal forgets a "no" that has not been said yet.
func (o *offer) heal(now time.Time) {
	if ahead(o.SeenAt, now, 0) {
		o.SeenAt = now
		if !o.yes() {
			o.Offered = nil
		}
	}
	if o.Directory != nil && ahead(o.Directory.At, now, 0) {
		o.Directory.At = now
	}
}
