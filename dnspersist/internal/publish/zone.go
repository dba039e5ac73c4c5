package publish

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
)

// runningCall is a call for a zone, of the client of one configuration, that was given up and has not
// ended: a provider that writes a zone back whole would undo what a second one has changed meanwhile.
// Other nodes are not kept waiting: nobody can notify them when it ends. Nor is another configuration, so that
// a reload helps.
type runningCall struct {
	by   *Options
	zone string
}

func (p *Process) isRunning(call runningCall) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.running[call]
}

// runsOn remembers such a call until it ends.
func (p *Process) runsOn(call runningCall, ended <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running == nil {
		p.running = make(map[runningCall]bool)
	}
	p.running[call] = true
	go func() {
		<-ended
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.running, call)
	}()
}

// providerCall is a call of the provider's client.
type providerCall func(ctx context.Context) error

// inZone runs a call of the provider while nobody else changes the zone, in the whole cluster: some read a
// zone, change it, and write it back whole. Its time begins when it is its turn.
func (c *change) inZone(ctx context.Context, zone string, call providerCall) error {
	key := runningCall{c.Options, zone}
	return c.Store.Locked(ctx, "dns_persist_zone_"+state.Safe(zone), nil, func() error {
		if c.Process.isRunning(key) {
			return fmt.Errorf("an earlier call of the provider for the zone %s was given up and has not ended; "+
				"it is not called again until then: look whether its API can be reached, and reload or restart Caddy", zone)
		}
		err := callWithin(ctx, c.Options.Timeout, call)
		var runs *runsOnError
		if errors.As(err, &runs) {
			c.Process.runsOn(key, runs.ended)
		}
		if err == nil || ctx.Err() == nil {
			c.Process.provider(c.Options).called(c.at.Name, err, c.Options.redact)
		}
		return err
	})
}

// defaultTimeout is how long one call of a provider may take.
const defaultTimeout = 2 * time.Minute

// callGrace is how long a call that was cancelled has to end and return what came of it.
const callGrace = time.Second

// runsOnError means that a call of a provider was given up and has not ended: its client obeys neither
// cancellation nor time-outs. What it still does cannot be known.
type runsOnError struct {
	err error
	// ended is closed once the call has ended after all.
	ended <-chan struct{}
}

func (e *runsOnError) Error() string {
	return fmt.Sprintf("%v, and its call runs on although it was cancelled", e.err)
}

func (e *runsOnError) Unwrap() error { return e.err }

// callWithin runs a call of a provider, which has to end in time: some clients have no time-out of
// their own, and an API that accepts and never answers would hold the locks around it for ever.
// One that does not even end when it is cancelled is left to itself; the error is a runsOnError then.
func callWithin(ctx context.Context, limit time.Duration, call providerCall) error {
	limit = cmp.Or(limit, defaultTimeout)
	within, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var err error
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer func() {
			if p := recover(); p != nil {
				err = fmt.Errorf("the provider's code has panicked: %v", p)
			}
		}()
		err = call(within)
	}()
	select {
	case <-ended:
	case <-within.Done():
		grace := time.NewTimer(callGrace)
		defer grace.Stop()
		select {
		case <-ended:
		case <-grace.C:
			return &runsOnError{inTime(ctx, within, within.Err(), limit), ended}
		}
	}
	return inTime(ctx, within, err, limit)
}

// inTime adds to an error that it comes from the limit, if it does.
func inTime(ctx, within context.Context, err error, limit time.Duration) error {
	if err != nil && ctx.Err() == nil && errors.Is(within.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("the provider did not answer within %s: look whether its API can be reached; it may have made the change all the same: %w", limit, err)
	}
	return err
}
