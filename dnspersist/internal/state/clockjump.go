package state

import (
	"slices"
	"time"
)

const (
	// Skew is how far the clocks of a cluster's nodes may be apart.
	Skew = 10 * time.Minute
	// mostNotBefore is more than the caches of a CA's resolvers are waited for.
	mostNotBefore = time.Hour
	// mostCAA is how far ahead it is noted that CAA records were disregarded.
	mostCAA = 6 * time.Hour
)

// IsAhead reports whether t is later than it can be, when it may lie in the future by most.
func IsAhead(t, now time.Time, most time.Duration) bool { return t.After(now.Add(most + Skew)) }

// Repair forgets times that have not come yet: the clock was ahead when they were written, and
// the name would be held up until it is as late as it seemed to be.
func (n *Name) Repair(now time.Time) {
	n.Attempts = slices.DeleteFunc(n.Attempts, func(at time.Time) bool { return IsAhead(at, now, 0) })
	n.Refused = slices.DeleteFunc(n.Refused, func(r RefusedValue) bool { return IsAhead(r.At, now, 0) })
	for _, t := range []*time.Time{&n.PartialSince, &n.LookedAt, &n.ChangeAt} {
		if IsAhead(*t, now, 0) {
			*t = time.Time{}
		}
	}
	// these two are meant for the future
	if IsAhead(n.NotBefore, now, mostNotBefore) {
		n.NotBefore = time.Time{}
	}
	if IsAhead(n.CAASince, now, mostCAA) {
		n.CAASince = time.Time{}
	}
}

// repair takes what lies ahead for what has just been done: that a challenge was posted would count
// for as long as the clock was ahead, and the order be waited for. It reports whether it did.
func (o *Order) repair(now time.Time) (repaired bool) {
	for _, t := range []*time.Time{&o.PostedAt, &o.FinalizedAt} {
		if IsAhead(*t, now, 0) {
			*t, repaired = now, true
		}
	}
	return repaired
}
