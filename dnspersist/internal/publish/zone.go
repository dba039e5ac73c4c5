package publish

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/libdns/libdns"
)

// lockingZone is the provider, which lets one change of a zone through at a time, in the
// whole cluster: some read a zone, change it, and write it back whole.
func (c *change) lockingZone() libdns.RecordAppender {
	add := zoneAppender{c}
	if deleter, ok := c.Options.Provider.(libdns.RecordDeleter); ok {
		return struct {
			zoneAppender
			zoneDeleter
		}{add, zoneDeleter{c, deleter}}
	}
	return add
}

// runningCall is a call for a zone, of the client of one configuration, that was given up and has not
// ended: a provider that writes a zone back whole would undo what a second one has changed meanwhile.
// Other nodes are not kept waiting: nobody can tell them when it ends. Nor is another configuration, so that
// a reload helps.
type runningCall struct {
	by   *Options
	zone string
}

// isRunning reports whether such a call has not ended.
func (p *Process) isRunning(call runningCall) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	ended, runs := p.running[call]
	if !runs {
		return false
	}
	select {
	case <-ended:
		delete(p.running, call)
		return false
	default:
		return true
	}
}

// runsOn remembers such a call.
func (p *Process) runsOn(call runningCall, ended <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running == nil {
		p.running = make(map[runningCall]<-chan struct{})
	}
	p.running[call] = ended
}

// inZone runs a call of the provider while nobody else changes the zone. Its time begins when
// it is its turn.
func (c *change) inZone(ctx context.Context, zone string, call func(ctx context.Context) ([]libdns.Record, error)) (records []libdns.Record, err error) {
	zone = strings.TrimSuffix(zone, ".")
	key := runningCall{c.Options, zone}
	err = c.Store.Locked(ctx, "dns_persist_zone_"+c.Store.Safe(zone), nil, func() error {
		if c.Process.isRunning(key) {
			return fmt.Errorf("an earlier call of the provider for the zone %s was given up and has not ended; "+
				"it is not called again until then: look whether its API can be reached, and reload or restart Caddy", zone)
		}
		records, err = Call(ctx, c.Options.Timeout, call)
		var runs *RunsOnError
		if errors.As(err, &runs) {
			c.Process.runsOn(key, runs.Ended)
		}
		if err == nil || ctx.Err() == nil {
			c.Process.provider(c.Options).called(c.at.Name, err, c.redact)
		}
		return err
	})
	return records, err
}

type zoneAppender struct{ *change }

// AppendRecords implements libdns.RecordAppender.
func (z zoneAppender) AppendRecords(ctx context.Context, zone string, records []libdns.Record) ([]libdns.Record, error) {
	return z.inZone(ctx, zone, func(ctx context.Context) ([]libdns.Record, error) {
		return z.Options.Provider.AppendRecords(ctx, zone, records)
	})
}

type zoneDeleter struct {
	*change
	deleter libdns.RecordDeleter
}

// DeleteRecords implements libdns.RecordDeleter.
func (z zoneDeleter) DeleteRecords(ctx context.Context, zone string, records []libdns.Record) ([]libdns.Record, error) {
	return z.inZone(ctx, zone, func(ctx context.Context) ([]libdns.Record, error) {
		return z.deleter.DeleteRecords(ctx, zone, records)
	})
}

// DefaultTimeout is how long one call of a provider may take.
const DefaultTimeout = 2 * time.Minute

// callGrace is how long a call that was cancelled has to end and say what came of it.
const callGrace = time.Second

// RunsOnError says that a call of a provider was given up and has not ended: its client obeys neither
// cancellation nor time-outs. What it still does cannot be known.
type RunsOnError struct {
	Err error
	// Ended is closed once the call has ended after all.
	Ended <-chan struct{}
}

func (e *RunsOnError) Error() string {
	return fmt.Sprintf("%v, and its call runs on although it was cancelled", e.Err)
}

func (e *RunsOnError) Unwrap() error { return e.Err }

// Call runs a call of a provider, which has to end in time: some clients have no time-out of
// their own, and an API that accepts and never answers would hold the locks around it for ever.
// One that does not even end when it is cancelled is left to itself; the error is a RunsOnError then.
func Call[T any](ctx context.Context, limit time.Duration, fn func(ctx context.Context) (T, error)) (T, error) {
	limit = or(limit, DefaultTimeout)
	within, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var value T
	var err error
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer func() {
			if p := recover(); p != nil {
				err = fmt.Errorf("the provider's code has panicked: %v", p)
			}
		}()
		value, err = fn(within)
	}()
	select {
	case <-ended:
	case <-within.Done():
		grace := time.NewTimer(callGrace)
		defer grace.Stop()
		select {
		case <-ended:
		case <-grace.C:
			var none T
			return none, &RunsOnError{Err: inTime(ctx, within, within.Err(), limit), Ended: ended}
		}
	}
	return value, inTime(ctx, within, err, limit)
}

// inTime says of an error that it comes from the limit, if it does.
func inTime(ctx, within context.Context, err error, limit time.Duration) error {
	if err != nil && ctx.Err() == nil && errors.Is(within.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("the provider did not answer within %s: look whether its API can be reached; it may have made the change all the same: %w", limit, err)
	}
	return err
}

// detached is for what has to be done even if ctx has ended, but not for ever: a call, one
// of somebody else who has the zone's lock before, and the wait for the servers.
func (w *Writer) detached(ctx context.Context) (context.Context, context.CancelFunc) {
	limit := or(w.Wait, DefaultWait) + 2*or(w.Timeout, DefaultTimeout)
	return context.WithTimeoutCause(context.WithoutCancel(ctx), limit, fmt.Errorf("it took longer than %s", limit))
}
