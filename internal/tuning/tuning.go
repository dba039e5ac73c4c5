// Package tuning holds what tests and the lab change about a running plugin: the
// way to name servers, and times that are too long to wait for. Nothing here can
// be reached from a configuration. It is read where a module is provisioned and nowhere else:
// a configuration keeps what was in force then, whatever is set later.
package tuning

import (
	"sync"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
)

// Values replaces defaults; zero values leave them alone.
type Values struct {
	// Exchanger carries DNS queries, for name servers that are not at port 53.
	Exchanger propagation.Exchanger
	// Grace and Settle are those of the gate.
	Grace, Settle time.Duration
	// MinPoll and MaxPoll bound the interval of polls.
	MinPoll, MaxPoll time.Duration
	// Retry is how long a domain waits until it is tried again whatever DNS shows.
	Retry time.Duration
	// AnnounceWindow is how long records are collected to be announced in one go,
	// AnnounceAgain how long until the first repetition.
	AnnounceWindow, AnnounceAgain time.Duration
	// DiagnoseAfter is how long a record is missing before it is looked for in wrong places.
	DiagnoseAfter time.Duration
	// NotOffered and NotOfferedRenewal are how long a CA is believed that does not
	// offer the challenge.
	NotOffered, NotOfferedRenewal time.Duration
	// MinAsk is the shortest time between two attempts of a certificate that runs out.
	MinAsk time.Duration
	// InlineProcessing is how long one attempt waits for a CA that takes long itself.
	InlineProcessing time.Duration
	// InlineQueue is how long one attempt waits for its turn at the CA.
	InlineQueue time.Duration
	// LookAtNames is how often standing records are looked at.
	LookAtNames time.Duration
	// Lease is how often it is made sure which node of a cluster polls.
	Lease time.Duration
	// ReadDirectory is how often a CA's directory is compared with what it said before.
	ReadDirectory time.Duration
	// PublishInterval is the time between two looks at a write, PublishRetry how long after a
	// failed one it is tried again.
	PublishInterval, PublishRetry time.Duration
	// RetireAfter is how long nobody has wanted a value of ours before it is removed.
	RetireAfter time.Duration
	// ShortestPersistFor is the shortest lifetime of a record that is accepted.
	ShortestPersistFor time.Duration
	// PropagationTimeout is how long one attempt waits inline.
	PropagationTimeout time.Duration
}

var (
	mu      sync.RWMutex
	current Values
)

// Set changes the values for what is provisioned from now on, and returns a
// function that restores the former ones.
func Set(v Values) (restore func()) {
	mu.Lock()
	defer mu.Unlock()
	old := current
	current = v
	return func() {
		mu.Lock()
		defer mu.Unlock()
		current = old
	}
}

// Get returns the values in force.
func Get() Values {
	mu.RLock()
	defer mu.RUnlock()
	return current
}

// Or returns value, or def where it is zero.
func Or(value, def time.Duration) time.Duration {
	if value == 0 {
		return def
	}
	return value
}
