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
)

// Standing is what the authoritative servers show at a name.
type Standing struct {
	// Zone is the apex of the zone that the name is in, without final dot.
	Zone string
	// Servers are the whole TXT values, foreign ones too, on each server that answers.
	Servers [][]string
	// TTL is theirs, zero if there are none.
	TTL time.Duration
}

// Values are those that any server shows.
func (s Standing) Values() []string {
	var all []string
	for _, values := range s.Servers {
		all = append(all, without(values, all)...)
	}
	return all
}

// Everywhere are the values that each server shows.
func (s Standing) Everywhere() []string {
	var all []string
	for _, v := range s.Values() {
		if !slices.ContainsFunc(s.Servers, func(values []string) bool { return !slices.Contains(values, v) }) {
			all = append(all, v)
		}
	}
	return all
}

// Reader asks the authoritative servers what stands at a name. An error says that they do not
// tell: then nothing is written.
type Reader func(ctx context.Context, name string) (Standing, error)

// Defaults of a Writer.
const (
	// DefaultTTL is that of records at names that have none.
	DefaultTTL = time.Hour
	// DefaultWait is how long a write may take to show on the authoritative servers.
	DefaultWait = 2 * time.Minute
	// DefaultInterval is the time between two looks.
	DefaultInterval = 2 * time.Second
)

// Writer adds values to names. It may be used by one goroutine at a time for one name.
type Writer struct {
	// Provider is the zone's provider. Required. SetRecords is never used.
	Provider libdns.RecordAppender
	// Read tells what stands. Required.
	Read Reader
	// TTL, Wait and Interval replace the defaults.
	TTL, Wait, Interval time.Duration
	// Secrets are strings of the provider's configuration, which no error may show.
	Secrets []string
	// Logger may be nil.
	Logger *zap.Logger
}

// Added is what Add has done.
type Added struct {
	// Zone is where it was written.
	Zone string
	// Values are those that were added; empty if all stood already.
	Values []string
	// Restored are foreign values that the provider had lost and that were put back.
	Restored []string
}

// LostError says that a provider has removed values that are not ours, and that they could
// not be put back: somebody has to.
type LostError struct {
	Name   string
	Values []string
	Err    error
}

func (e *LostError) Error() string {
	return fmt.Sprintf("the provider has removed other values at %s and they could not be put back: add these TXT values again: %s: %v",
		e.Name, strings.Join(quoted(e.Values), " "), e.Err)
}

func (e *LostError) Unwrap() error { return e.Err }

// Add makes values stand at a name beside what does. Those that stand are left alone, so it
// may be repeated. It returns once the authoritative servers show them, or with an error that
// says how far it came.
func (w *Writer) Add(ctx context.Context, name string, values ...string) (Added, error) {
	before, err := w.settled(ctx, name)
	if err != nil {
		return Added{}, w.redact(fmt.Errorf("publishing at %s: what stands there is not known, so nothing was written: %w", name, err))
	}
	done := Added{Zone: before.Zone}
	stood := before.Values()
	missing := without(values, stood)
	if len(missing) == 0 {
		return done, nil
	}
	ttl := before.TTL
	if ttl <= 0 {
		ttl = or(w.TTL, DefaultTTL)
	}
	after, err := w.write(ctx, name, before.Zone, ttl, missing, missing, stood)
	if other := altered(name, missing, stood, after.Values()); err != nil && other != nil {
		if lost := w.lost(stood, []string{other.Found}, after); len(lost) > 0 {
			// it would change what is put back as well
			return done, &LostError{Name: name, Values: lost, Err: w.redact(other)}
		}
		return done, w.redact(other)
	}
	lost := w.lost(stood, missing, after)
	if err == nil {
		done.Values = missing
	}
	if len(lost) == 0 {
		if err != nil {
			err = w.redact(fmt.Errorf("publishing at %s: %w", name, err))
		}
		return done, err
	}
	// It replaces where it should add. All at once is what such a provider understands.
	w.logger().Warn("the provider has replaced values that are not ours; putting them back",
		zap.String("name", name), zap.Strings("values", lost))
	all := slices.Concat(stood, missing)
	if after, err = w.write(context.WithoutCancel(ctx), name, before.Zone, ttl, all, all, all); err != nil {
		return done, &LostError{Name: name, Values: without(stood, after.Everywhere()), Err: w.redact(err)}
	}
	done.Values, done.Restored = missing, lost
	return done, nil
}

// settled is what stands once all servers show the same: while a change of somebody else is on
// its way, what a careless provider would lose of it cannot be known. Servers that never
// agree are waited for only so long.
func (w *Writer) settled(ctx context.Context, name string) (Standing, error) {
	var last Standing
	err := w.look(ctx, or(w.Wait, DefaultWait), func() (bool, error) {
		shown, err := w.Read(ctx, name)
		if err != nil {
			return true, err
		}
		last = shown
		return len(without(shown.Values(), shown.Everywhere())) == 0, nil
	})
	if errors.Is(err, errTooLong) {
		err = nil
	}
	return last, err
}

// lost are the values that stood and that a server which shows what was written shows no more.
func (w *Writer) lost(stood, written []string, after Standing) []string {
	var lost []string
	for _, values := range after.Servers {
		if len(without(written, values)) == 0 {
			lost = append(lost, without(without(stood, values), lost)...)
		}
	}
	return lost
}

// write appends records and waits until the servers show the values of want. An error of the
// provider is not the last word: the write may have gone through.
func (w *Writer) write(ctx context.Context, name, zone string, ttl time.Duration, values, want, stood []string) (Standing, error) {
	records := make([]libdns.Record, 0, len(values))
	for _, v := range values {
		records = append(records, libdns.TXT{Name: libdns.RelativeName(name, zone), TTL: ttl, Text: v})
	}
	_, wrote := w.Provider.AppendRecords(ctx, zone+".", records)
	patience := or(w.Wait, DefaultWait)
	if wrote != nil {
		patience = min(patience, afterFailure*or(w.Interval, DefaultInterval))
	}
	var last Standing
	var why error
	err := w.look(ctx, patience, func() (bool, error) {
		shown, err := w.Read(ctx, name)
		if err == nil {
			last = shown
			err = absent(want, shown.Everywhere())
		}
		why = err
		if other := altered(name, want, stood, last.Everywhere()); other != nil {
			return true, other
		}
		return err == nil, nil
	})
	switch {
	case err == nil:
		return last, nil
	case wrote != nil:
		return last, fmt.Errorf("adding to the zone %s: %w", zone, wrote)
	case errors.Is(err, errTooLong):
		return last, fmt.Errorf("the provider has taken it, but %w after %s: it may still come, look again later", why, patience)
	}
	return last, err
}

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

// redact takes the provider's secrets out of an error.
func (w *Writer) redact(err error) error { return RedactError(err, w.Secrets) }

func (w *Writer) logger() *zap.Logger {
	if w.Logger == nil {
		return zap.NewNop()
	}
	return w.Logger
}

// without returns those of list that are not in other.
func without(list, other []string) []string {
	var rest []string
	for _, v := range list {
		if !slices.Contains(other, v) && !slices.Contains(rest, v) {
			rest = append(rest, v)
		}
	}
	return rest
}

func quoted(values []string) []string {
	list := make([]string, len(values))
	for i, v := range values {
		list[i] = fmt.Sprintf("%q", v)
	}
	return list
}

func or(d, def time.Duration) time.Duration {
	if d > 0 {
		return d
	}
	return def
}
