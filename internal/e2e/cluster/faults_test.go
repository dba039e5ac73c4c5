//go:build long && unix

package cluster

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/dnspersist/caddy-dnspersist/internal/e2e/harness"
)

// Three nodes that start at once, of records that are there and records that come.
func TestCalm(t *testing.T) {
	w := newWorld(t, fleet, harness.Options{})
	w.bind()
	w.publish(w.names[:200])
	w.start()
	w.serves(calm, w.names[:200], w.nodes...)
	w.publish(w.names[200:])
	w.serves(calm, w.names, w.nodes...)
	w.assert(0)
}

// Nodes are killed at work, and come back.
func TestKilled(t *testing.T) {
	w := newWorld(t, few, harness.Options{})
	w.bind()
	w.publish(w.names[:few/2])
	w.start()
	for i, n := range w.nodes {
		w.issued(few / 8 * (i + 1))
		n.kill()
		n.start()
	}
	w.publish(w.names[few/2:])
	w.serves(calm, w.names, w.nodes...)
	w.assert(3 * inWork) // the keys of what a killed process had finalized have ended with it
}

// Each command of Redis takes 200 ms longer while half of the certificates are obtained. The connections of the client
// are the bound then: hundreds of jobs ask for their locks each second, so that refreshes come too late.
func TestSlow(t *testing.T) {
	w := newWorld(t, few, harness.Options{})
	w.bind()
	w.publish(w.names[:few/2])
	w.start()
	w.issued(few / 5)
	for _, n := range w.nodes {
		n.proxy.slow(200 * time.Millisecond)
	}
	w.publish(w.names[few/2:])
	w.Eventually(2*calm, "half of the certificates", func() error { return harness.AtLeast(w.CA.Certificates(), few/2) })
	for _, n := range w.nodes {
		n.proxy.slow(0)
	}
	w.serves(calm, w.names, w.nodes...)
	w.assert(0)
}

// A node is cut off from Redis at work, for longer than its locks last, and comes back.
func TestCutOff(t *testing.T) {
	w := newWorld(t, few, harness.Options{})
	w.bind()
	w.publish(w.names[:few/2])
	w.start()
	w.issued(few / 5)
	cut := w.nodes[0]
	cut.proxy.cut()
	w.publish(w.names[few/2:])
	w.serves(calm, w.names, w.nodes[1:]...) // the others go on
	cut.proxy.mend()
	w.serves(calm, w.names, cut)
	w.assert(inWork) // what was being stored, or ordered, at the moment of the cut
}

// A node stands still for longer than its locks last, and goes on.
func TestFrozen(t *testing.T) {
	w := newWorld(t, few, harness.Options{})
	w.bind()
	w.publish(w.names)
	w.start()
	w.issued(few / 5)
	frozen := w.nodes[0]
	frozen.signal(syscall.SIGSTOP)
	held := w.redis.locks()
	w.Eventually(harness.Soon, "the locks of the frozen node to end", func() error {
		now := w.redis.locks()
		for key, token := range held {
			if now[key] == token {
				return fmt.Errorf("%s is still held", key)
			}
		}
		return nil
	})
	w.serves(calm, w.names, w.nodes[1:]...)
	frozen.signal(syscall.SIGCONT)
	w.serves(calm, w.names, frozen)
	w.assert(inWork)
}

// The clock of a node is ahead.
func TestClockAhead(t *testing.T) {
	w := newWorld(t, few, harness.Options{})
	w.bind()
	w.publish(w.names[:few/2])
	w.nodes[1].ahead = 30 * time.Second
	w.start()
	w.issued(few / 5)
	w.publish(w.names[few/2:])
	w.serves(calm, w.names, w.nodes...)
	w.assert(0)
}
