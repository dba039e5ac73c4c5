// Package walltime is the clock that is set: by NTP, by hand, and by tests. What is kept in
// storage or printed on a certificate is held against it. How long something has taken within
// the process is not, for that goes on over a change of the clock.
package walltime

import (
	"sync/atomic"
	"time"
)

var offset atomic.Int64

// Now is the time of day.
func Now() time.Time {
	if d := time.Duration(offset.Load()); d != 0 {
		return time.Now().Add(d).Round(0) // as a clock that was set: without what the process knows better
	}
	return time.Now()
}

// Since is the time since t by this clock.
func Since(t time.Time) time.Duration { return Now().Sub(t) }

// Until is the time until t by this clock.
func Until(t time.Time) time.Duration { return t.Sub(Now()) }

// Set puts the clock ahead, or back, until restore is called. It is for tests, and holds for the
// whole process.
func Set(ahead time.Duration) (restore func()) {
	old := offset.Swap(int64(ahead))
	return func() { offset.Store(old) }
}
