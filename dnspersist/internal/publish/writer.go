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
	// Provider is the zone's provider. Required. SetRecords is never used. Its calls have to end,
	// see Call.
	Provider libdns.RecordAppender
	// Read tells what stands. Required.
	Read Reader
	// TTL, Wait and Interval replace the defaults.
	TTL, Wait, Interval time.Duration
	// Timeout is how long a call of the provider takes at most. Default: DefaultTimeout.
	Timeout time.Duration
	// Note is called right before a change, with the values that stand beside what is changed:
	// it may keep them, to have them put back if this process does not see the end. After an
	// error of it nothing is changed. It may be nil.
	Note func(ctx context.Context, beside []string) error
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
	missing := without(values, before.Values())
	if len(missing) == 0 {
		return done, nil
	}
	if err := w.note(ctx, before.Everywhere()); err != nil {
		return done, fmt.Errorf("publishing at %s: nothing was written: %w", name, err)
	}
	after, first, err := w.write(ctx, name, before, missing, before.Values())
	stood := before.common(first)
	if other := altered(name, missing, before.Values(), after.Values()); err != nil && other != nil {
		if lost := before.vanished(after, stood, shows(other.Found)); len(lost) > 0 {
			// it would change what is put back as well
			return done, &LostError{Name: name, Values: lost, Err: w.redact(other)}
		}
		return done, w.redact(other)
	}
	if err == nil {
		done.Values = missing
	} else {
		err = w.redact(fmt.Errorf("publishing at %s: %w", name, err))
	}
	// A server that shows nothing of ours tells as well, if it answered before: some providers
	// delete what stands and then create all anew, and fail in between.
	lost := before.vanished(after, stood, func(s Server) bool {
		_, known := before.at(s.Address)
		return known || shows(missing...)(s)
	})
	if len(first) == 0 {
		w.doubt(name, before, after, stood)
	}
	if len(lost) == 0 {
		return done, err
	}
	// It replaces where it should add. All at once is what such a provider understands.
	w.logger().Warn("the provider has replaced values that are not ours; putting them back",
		zap.String("name", name), zap.Strings("values", foreign.Values(lost)))
	if err := w.restore(ctx, name, before, lost, stood, values); err != nil {
		return done, err
	}
	done.Values, done.Restored = missing, lost
	return done, nil
}

// note has kept what stands beside a change. Where the servers never agreed, that is what each of
// them shows: which of them is behind is not known yet, and what only that one shows was
// removed on purpose.
func (w *Writer) note(ctx context.Context, beside []string) error {
	if w.Note == nil {
		return nil
	}
	return w.Note(ctx, beside)
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
