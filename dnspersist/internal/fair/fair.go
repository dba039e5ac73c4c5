// Package fair shares what there is among those who want it, so that whoever wants too much
// starves itself alone: by registered domain, by any other key, and by what was used before.
// It asks nobody and reads no clock.
package fair

import (
	"strings"
	"time"

	"golang.org/x/net/publicsuffix"
)

// Domain returns the registered domain of a name: what one owner has under a public suffix,
// "example.co.uk" for "www.example.co.uk". A name without one is its own: a public suffix
// ("home.arpa", "duckdns.org"), a single label ("nas") and the root. Below a top-level domain
// that the list does not have ("lan", "internal") it is the last two labels.
//
// A registered domain costs its owner nothing below many suffixes, so it bounds what an
// honest owner can do to others, and never alone what a hostile one can.
func Domain(name string) string {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if domain, err := publicsuffix.EffectiveTLDPlusOne(name); err == nil {
		return domain
	}
	return name
}

// Queue is a fair queue: each key has a line of its own, first come first served, and of
// those who wait the key is served that has used least, so that all who always wait get the
// same share, and one that seldom does is served at once. What was not used is not saved.
// (Goyal, Vin, Cheng: Start-time Fair Queueing, 1996.)
//
// The zero value is ready to use. It is meant for few keys, which are never forgotten; it is
// not safe for concurrent use.
type Queue[K comparable, T any] struct {
	lines []*line[K, T]
	used  float64 // by the key served last, before it was
}

type line[K comparable, T any] struct {
	key   K
	items []T
	used  float64
}

// Push has an item wait under key.
func (q *Queue[K, T]) Push(key K, item T) {
	l := q.line(key)
	if len(l.items) == 0 {
		l.used = max(l.used, q.used)
	}
	l.items = append(l.items, item)
}

// Pop takes the next item of those under keys that may be served.
func (q *Queue[K, T]) Pop(may func(K) bool) (item T, ok bool) {
	var next *line[K, T]
	for _, l := range q.lines {
		if len(l.items) > 0 && (next == nil || l.used < next.used) && may(l.key) {
			next = l
		}
	}
	if next == nil {
		return item, false
	}
	q.used = max(q.used, next.used)
	item = next.items[0]
	var none T
	next.items[0] = none
	if next.items = next.items[1:]; len(next.items) == 0 {
		next.items = nil
	}
	return item, true
}

// Charge notes that an item of key has used so much, or so much less than was noted.
func (q *Queue[K, T]) Charge(key K, used float64) {
	q.line(key).used += used
}

// Len returns how many items wait.
func (q *Queue[K, T]) Len() (n int) {
	for _, l := range q.lines {
		n += len(l.items)
	}
	return n
}

func (q *Queue[K, T]) line(key K) *line[K, T] {
	for _, l := range q.lines {
		if l.key == key {
			return l
		}
	}
	l := &line[K, T]{key: key, used: q.used}
	q.lines = append(q.lines, l)
	return l
}

// Pace spaces what is done under each of many keys. The zero value is ready to use; it is
// not safe for concurrent use.
type Pace[K comparable] struct {
	// Burst is how far ahead of its pace a key may be.
	Burst time.Duration

	free  map[K]time.Time // when all that was reserved has been made up for
	sweep int             // the size at which keys that are free are forgotten
}

// minSweep is the least size at which free keys are looked for.
const minSweep = 1024

// Reserve takes the next place of key, which then is busy for hold, and returns when it
// comes, now at the earliest.
func (p *Pace[K]) Reserve(key K, now time.Time, hold time.Duration) time.Time {
	at := p.Next(key, now)
	p.Hold(key, now, hold)
	return at
}

// Next returns when the next place of key comes, now at the earliest.
func (p *Pace[K]) Next(key K, now time.Time) time.Time {
	if at := p.free[key].Add(-p.Burst); at.After(now) {
		return at
	}
	return now
}

// Hold makes key busy for longer, or, if d is negative, for less long.
func (p *Pace[K]) Hold(key K, now time.Time, d time.Duration) {
	free := p.free[key]
	if free.Before(now) {
		free = now
	}
	if free = free.Add(d); !free.After(now) {
		delete(p.free, key)
		return
	}
	if p.free == nil {
		p.free = make(map[K]time.Time)
	}
	p.free[key] = free
	if len(p.free) >= max(p.sweep, minSweep) {
		for k, free := range p.free {
			if !free.After(now) {
				delete(p.free, k)
			}
		}
		p.sweep = 2 * len(p.free)
	}
}
