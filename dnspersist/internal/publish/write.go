package publish

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/libdns/libdns"
	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/foreign"
)

// doubt says which values are gone of those that are not put back, because only some servers
// showed them and nobody can tell which of these are behind.
func (w *Writer) doubt(name string, before, after Standing, stood []string) {
	gone := before.vanished(after, without(before.Values(), stood), func(Server) bool { return true })
	if len(gone) > 0 {
		w.logger().Warn("values that only some of the name servers showed are gone; add them again if nobody has removed them on purpose",
			zap.String("name", name), zap.Strings("values", foreign.Values(gone)))
	}
}

// restore writes what stood, and the values of ours, after some of it was lost.
func (w *Writer) restore(ctx context.Context, name string, before Standing, lost, stood, ours []string) error {
	all := without(slices.Concat(stood, ours), nil)
	ctx, cancel := w.detached(ctx)
	defer cancel()
	after, _, err := w.write(ctx, name, before, all, slices.Concat(all, before.Values()))
	if err == nil {
		return nil
	}
	if len(after.Servers) > 0 {
		lost = before.vanished(after, stood, func(Server) bool { return true })
	}
	if len(lost) == 0 {
		return w.redact(fmt.Errorf("at %s the values of others stand again, but: %w", name, err))
	}
	return &LostError{Name: name, Values: lost, Err: w.redact(err)}
}

// shows says that a server has all of the values.
func shows(values ...string) func(Server) bool {
	return func(s Server) bool { return len(without(values, s.Values)) == 0 }
}

// write appends records and waits until all servers show them. An error of the provider is not
// the last word: the write may have gone through.
//
// The servers that are the first to show the records are the newest. Where servers never agreed
// before, what these had is what stood: on the others there may be what somebody has removed on
// purpose, which would come back if it was missed.
func (w *Writer) write(ctx context.Context, name string, before Standing, values, stood []string) (after Standing, first []string, err error) {
	records := make([]libdns.Record, 0, len(values))
	for _, v := range values {
		records = append(records, libdns.TXT{Name: libdns.RelativeName(name, before.Zone), TTL: or(before.TTL, or(w.TTL, DefaultTTL)), Text: v})
	}
	_, wrote := w.Provider.AppendRecords(ctx, before.Zone+".", records)
	patience := w.patience(wrote)
	var why error
	err = w.look(ctx, patience, func() (bool, error) {
		shown, err := w.Read(ctx, name)
		if err == nil {
			after = shown
			err = absent(values, shown.Everywhere())
		}
		why = err
		if first == nil {
			first = after.where(shows(values...))
		}
		if other := altered(name, values, stood, after.Everywhere()); other != nil {
			return true, other
		}
		return err == nil, nil
	})
	switch {
	case err == nil:
		return after, first, nil
	case wrote != nil:
		if shown, ok := w.lastLook(ctx, name); ok {
			after = shown
		}
		return after, first, fmt.Errorf("adding to the zone %s: %w", before.Zone, wrote)
	case errors.Is(err, errTooLong):
		return after, first, fmt.Errorf("the provider has taken it, but %w after %s: it may still come, look again later", why, patience)
	}
	return after, first, err
}

// patience is how long it is waited for a change that has ended with wrote.
func (w *Writer) patience(wrote error) time.Duration {
	patience := or(w.Wait, DefaultWait)
	if wrote != nil {
		patience = min(patience, afterFailure*or(w.Interval, DefaultInterval))
	}
	return patience
}

// lastLook is what stands after a call that was cut off because ctx has ended: nobody may come
// back to see what it has done until then.
func (w *Writer) lastLook(ctx context.Context, name string) (Standing, bool) {
	if ctx.Err() == nil {
		return Standing{}, false
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastLook)
	defer cancel()
	shown, err := w.Read(ctx, name)
	return shown, err == nil
}

// lastLook is how long the last look may take.
const lastLook = 10 * time.Second

// afterFailure is how many intervals are waited for a write that may have gone through.
const afterFailure = 5

// errTooLong ends a wait.
var errTooLong = errors.New("it took too long")

// look calls fn until it is done, or for as long as patience lasts.
func (w *Writer) look(ctx context.Context, patience time.Duration, fn func() (done bool, err error)) error {
	limit := time.NewTimer(patience)
	defer limit.Stop()
	tick := time.NewTicker(or(w.Interval, DefaultInterval))
	defer tick.Stop()
	for {
		if done, err := fn(); done || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-limit.C:
			return errTooLong
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// absent says which of the values are not there.
func absent(want, there []string) error {
	if missing := without(want, there); len(missing) > 0 {
		return fmt.Errorf("the name servers do not show %s", strings.Join(quoted(missing), ", "))
	}
	return nil
}
