package fair

import "time"

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

// Len returns how many keys are remembered.
func (p *Pace[K]) Len() int { return len(p.free) }
