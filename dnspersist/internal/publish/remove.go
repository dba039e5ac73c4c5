package publish

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/libdns/libdns"
	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/foreign"
)

// ErrNoRemoval says that a provider can only add.
var ErrNoRemoval = errors.New("the provider cannot remove records: remove the value by hand")

// Removed is what Remove has done.
type Removed struct {
	Zone string
	// Gone is false if the value did not stand.
	Gone bool
	// Restored are other values that the provider had removed with it.
	Restored []string
}

// Remove takes exactly one value from a name and leaves all others. Whether the value is ours
// to remove is for the caller to know, see Inventory.
func (w *Writer) Remove(ctx context.Context, name, value string) (Removed, error) {
	deleter, ok := w.Provider.(libdns.RecordDeleter)
	switch {
	case !ok:
		return Removed{}, fmt.Errorf("removing from %s: %w: %q", name, ErrNoRemoval, value)
	case name == "" || value == "":
		// to a provider, nothing means everything
		return Removed{}, errors.New("removing: neither the name nor the value may be empty")
	}
	before, err := w.settled(ctx, name)
	if err != nil {
		return Removed{}, w.redact(fmt.Errorf("removing from %s: what stands there is not known, so nothing was removed: %w", name, err))
	}
	done := Removed{Zone: before.Zone}
	if !slices.Contains(before.Values(), value) {
		return done, nil
	}
	if err := w.note(ctx, without(before.Everywhere(), []string{value})); err != nil {
		return done, fmt.Errorf("removing from %s: nothing was removed: %w", name, err)
	}
	// without a TTL, which would have to match
	gone := libdns.TXT{Name: libdns.RelativeName(name, before.Zone), Text: value}
	_, wrote := deleter.DeleteRecords(ctx, before.Zone+".", []libdns.Record{gone})
	after, first, err := w.settleWithout(ctx, name, value, wrote)
	if err != nil {
		err = w.redact(fmt.Errorf("removing from %s: %w", name, err))
	}
	done.Gone = err == nil
	// what stood is the word of the servers that had the change first, see write
	stood := without(before.common(first), []string{value})
	lost := before.vanished(after, stood, lacks(value))
	w.doubt(name, before, after, append(stood, value))
	if len(lost) == 0 {
		return done, err
	}
	w.logger().Warn("the provider has removed values that are not ours; putting them back",
		zap.String("name", name), zap.Strings("values", foreign.Values(lost)))
	// all, for it may be one that replaces where it should add as well
	if err := w.restore(ctx, name, before, lost, stood, nil); err != nil {
		return done, err
	}
	done.Restored = lost
	return done, err
}

// lacks says that a server does not have the value.
func lacks(value string) func(Server) bool {
	return func(s Server) bool { return !slices.Contains(s.Values, value) }
}

// settleWithout waits until no server shows the value any more. first are the servers that
// lacked it first.
func (w *Writer) settleWithout(ctx context.Context, name, value string, wrote error) (after Standing, first []string, err error) {
	patience := w.patience(wrote)
	err = w.look(ctx, patience, func() (bool, error) {
		shown, err := w.Read(ctx, name)
		if err != nil {
			return false, nil //nolint:nilerr // asked again
		}
		after = shown
		if first == nil {
			first = shown.where(lacks(value))
		}
		return !slices.Contains(shown.Values(), value), nil
	})
	switch {
	case err == nil:
		return after, first, nil
	case wrote != nil:
		if shown, ok := w.lastLook(ctx, name); ok {
			after = shown
		}
		return after, first, wrote
	case errors.Is(err, errTooLong):
		return after, first, fmt.Errorf("the provider has taken it, but the name servers still show %q after %s: it may still go, look again later", value, patience)
	}
	return after, first, err
}
