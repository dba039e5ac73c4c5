package publish

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/libdns/libdns"
	"go.uber.org/zap"
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
	stood := before.Values()
	if !slices.Contains(stood, value) {
		return done, nil
	}
	others := without(stood, []string{value})
	// without a TTL, which would have to match
	gone := libdns.TXT{Name: libdns.RelativeName(name, before.Zone), Text: value}
	_, wrote := deleter.DeleteRecords(ctx, before.Zone+".", []libdns.Record{gone})
	after, err := w.settleWithout(ctx, name, value, wrote)
	if err != nil {
		return done, w.redact(fmt.Errorf("removing from %s: %w", name, err))
	}
	done.Gone = true
	lost := w.vanished(others, value, after)
	if len(lost) == 0 {
		return done, nil
	}
	w.logger().Warn("the provider has removed values that are not ours; putting them back",
		zap.String("name", name), zap.Strings("values", lost))
	// all, for it may be one that replaces where it should add as well
	if after, err = w.write(context.WithoutCancel(ctx), name, before.Zone, or(before.TTL, or(w.TTL, DefaultTTL)), others, others, others); err != nil {
		return done, &LostError{Name: name, Values: without(others, after.Everywhere()), Err: w.redact(err)}
	}
	done.Restored = lost
	return done, nil
}

// settleWithout waits until no server shows the value any more.
func (w *Writer) settleWithout(ctx context.Context, name, value string, wrote error) (Standing, error) {
	patience := or(w.Wait, DefaultWait)
	if wrote != nil {
		patience = min(patience, afterFailure*or(w.Interval, DefaultInterval))
	}
	var last Standing
	err := w.look(ctx, patience, func() (bool, error) {
		shown, err := w.Read(ctx, name)
		if err != nil {
			return false, nil //nolint:nilerr // asked again
		}
		last = shown
		return !slices.Contains(shown.Values(), value), nil
	})
	switch {
	case err == nil:
		return last, nil
	case wrote != nil:
		return last, wrote
	case errors.Is(err, errTooLong):
		return last, fmt.Errorf("the provider has taken it, but the name servers still show %q after %s: it may still go, look again later", value, patience)
	}
	return last, err
}

// vanished are the others that a server without the value does not show either.
func (w *Writer) vanished(others []string, value string, after Standing) []string {
	var lost []string
	for _, values := range after.Servers {
		if !slices.Contains(values, value) {
			lost = append(lost, without(without(others, values), lost)...)
		}
	}
	return lost
}
