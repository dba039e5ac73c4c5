package publish

import (
	"cmp"
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

const (
	// DefaultTTL is that of records at names that have none.
	DefaultTTL = time.Hour
	// DefaultWait is how long a write may take to show on the authoritative servers.
	DefaultWait = 2 * time.Minute
	// defaultInterval is the time between two looks.
	defaultInterval = 2 * time.Second
	// afterFailure is how many intervals are waited for a write that may have gone through, and lastLook
	// how long the last look may take.
	afterFailure = 5
	lastLook     = 10 * time.Second
)

// writer adds values to names and removes them, and puts back what the provider loses. One goroutine at a
// time may use it for one name.
type writer struct {
	*Options
	read reader
	// inZone runs a call of the provider that changes a zone.
	inZone func(ctx context.Context, zone string, call providerCall) error
	// note is called right before a change, with the values that are published beside what is changed:
	// it may keep them, to have them put back if this process does not see the end. After an
	// error of it nothing is changed.
	note   func(ctx context.Context, beside []string) error
	logger *zap.Logger
}

// added is what add has done.
type added struct {
	// values are those that were added; empty if all were published already.
	values []string
	// restored are foreign values that the provider had lost and that were put back.
	restored []string
}

// lostError means that a provider has removed values that are not ours, and that they could
// not be put back: somebody has to.
type lostError struct {
	Name   string
	Values []string
	Err    error
}

func (e *lostError) Error() string {
	return fmt.Sprintf("the provider has removed other values at %s and they could not be put back (%v): add these TXT values again: %s",
		e.Name, e.Err, strings.Join(foreign.Values(e.Values), " | "))
}

func (e *lostError) Unwrap() error { return e.Err }

// alteredError means that a provider has written something else than it was given.
type alteredError struct {
	name string
	// wanted is what it was given, found what is published.
	wanted, found string
}

func (e *alteredError) Error() string {
	return fmt.Sprintf("the provider changes what it is given: at %s it has published %s, which no CA accepts: remove that, report it to the provider's module, and publish this value by hand: %s",
		e.name, foreign.Text(e.found), e.wanted)
}

// alteredValue returns the one of the values that differs from the wanted one only in what careless
// providers change: letters' case, quotes, backslashes and spaces.
func alteredValue(wanted string, values []string) (found string, ok bool) {
	plain := strings.NewReplacer(`"`, "", `\`, "", " ", "")
	same := strings.ToLower(plain.Replace(wanted))
	for _, v := range values {
		if v != wanted && strings.ToLower(plain.Replace(v)) == same {
			return v, true
		}
	}
	return "", false
}

// altered is the error if one of the written values came out as something else.
func altered(name string, written, before, after []string) *alteredError {
	for _, w := range written {
		if found, ok := alteredValue(w, without(after, before)); ok {
			return &alteredError{name, w, found}
		}
	}
	return nil
}

// add adds the values that are not published at a name, and may be repeated. It returns once the
// authoritative servers show them, or with an error that reports how far it came.
func (w *writer) add(ctx context.Context, name string, values ...string) (added, error) {
	before, err := w.settled(ctx, name)
	if err != nil {
		return added{}, w.redact(fmt.Errorf("publishing at %s: the values published there are not known, so nothing was written: %w", name, err))
	}
	missing := without(values, before.values())
	if len(missing) == 0 {
		return added{}, nil
	}
	// Where the servers never agreed, these are the values that each of them shows: which of them is
	// behind is not known yet, and what only that one shows was removed on purpose.
	if err := w.note(ctx, before.everywhere()); err != nil {
		return added{}, fmt.Errorf("publishing at %s: nothing was written: %w", name, err)
	}
	after, first, err := w.write(ctx, name, before, missing, before.values())
	kept := before.common(first)
	if other := altered(name, missing, before.values(), after.values()); err != nil && other != nil {
		if lost := before.vanished(after, kept, shows(other.found)); len(lost) > 0 {
			// it would change what is put back as well
			return added{}, &lostError{Name: name, Values: lost, Err: w.redact(other)}
		}
		return added{}, w.redact(other)
	}
	var done added
	if err == nil {
		done.values = missing
	} else {
		err = w.redact(fmt.Errorf("publishing at %s: %w", name, err))
	}
	// A server that shows nothing of ours is looked at as well, if it answered before: some providers
	// delete all first and then create all anew, and fail in between.
	lost := before.vanished(after, kept, func(s server) bool {
		_, known := before.at(s.address)
		return known || shows(missing...)(s)
	})
	if len(first) == 0 {
		w.doubt(name, before, after, kept)
	}
	if len(lost) == 0 {
		return done, err
	}
	// It replaces where it should add. All at once is what such a provider understands.
	w.logger.Warn("the provider has replaced values that are not ours; putting them back",
		zap.String("name", name), zap.Strings("values", foreign.Values(lost)))
	if err := w.restore(ctx, name, before, lost, without(slices.Concat(kept, values), nil)); err != nil {
		return done, err
	}
	return added{values: missing, restored: lost}, nil
}

// settled are the published values once all servers show the same: while a change of somebody else is on
// its way, what a careless provider would lose of it cannot be known. Servers that never
// agree are waited for only so long.
func (w *writer) settled(ctx context.Context, name string) (published, error) {
	var last published
	err := w.look(ctx, cmp.Or(w.Wait, DefaultWait), func() (bool, error) {
		shown, err := w.read(ctx, name)
		if err != nil {
			return true, err
		}
		last = shown
		return len(without(shown.values(), shown.everywhere())) == 0, nil
	})
	if errors.Is(err, errTooLong) {
		err = nil
	}
	return last, err
}

// write appends records and waits until all servers show them. An error of the provider does not
// decide: the write may have gone through.
//
// The servers that are the first to show the records are the newest. Where servers never agreed
// before, what these had is what is kept: on the others there may be what somebody has removed on
// purpose, which would come back if it was missed.
func (w *writer) write(ctx context.Context, name string, before published, values, known []string) (after published, first []string, err error) {
	records := make([]libdns.Record, 0, len(values))
	for _, v := range values {
		records = append(records, libdns.TXT{Name: libdns.RelativeName(name, before.zone), TTL: w.ttlAt(before), Text: v})
	}
	wrote := w.inZone(ctx, before.zone, providerCall{OperationAdd, func(ctx context.Context) error {
		_, err := w.Provider.AppendRecords(ctx, before.zone+".", records)
		return err
	}})
	patience := w.patience(wrote)
	var why error
	err = w.look(ctx, patience, func() (bool, error) {
		shown, err := w.read(ctx, name)
		if err == nil {
			after = shown
			if missing := without(values, shown.everywhere()); len(missing) > 0 {
				err = fmt.Errorf("the name servers do not show %s", strings.Join(foreign.Values(missing), " | "))
			}
		}
		why = err
		if first == nil {
			first = after.where(shows(values...))
		}
		if other := altered(name, values, known, after.everywhere()); other != nil {
			return true, other
		}
		return err == nil, nil
	})
	switch {
	case err != nil && wrote != nil:
		return w.lastLook(ctx, name, after), first, fmt.Errorf("adding to the zone %s: %w", before.zone, wrote)
	case errors.Is(err, errTooLong):
		return after, first, fmt.Errorf("the provider has taken it, but %w after %s: it may still come, look again later", why, patience)
	}
	return after, first, err
}

// restore writes all values of a name after some of them were lost.
func (w *writer) restore(ctx context.Context, name string, before published, lost, all []string) error {
	ctx, cancel := w.detached(ctx)
	defer cancel()
	after, _, err := w.write(ctx, name, before, all, slices.Concat(all, before.values()))
	if err == nil {
		return nil
	}
	if len(after.servers) > 0 {
		lost = before.vanished(after, all, func(server) bool { return true })
	}
	if len(lost) == 0 {
		return w.redact(fmt.Errorf("at %s the values of others are published again, but: %w", name, err))
	}
	return &lostError{Name: name, Values: lost, Err: w.redact(err)}
}

// detached is for what has to be done even if ctx has ended, but not for ever: a call, one
// of somebody else who has the zone's lock before, and the wait for the servers.
func (w *writer) detached(ctx context.Context) (context.Context, context.CancelFunc) {
	limit := cmp.Or(w.Wait, DefaultWait) + 2*cmp.Or(w.Timeout, defaultTimeout)
	return context.WithTimeoutCause(context.WithoutCancel(ctx), limit, fmt.Errorf("it took longer than %s", limit))
}

// doubt logs which values are gone of those that are not put back, because only some servers
// showed them and nobody can know which of these are behind.
func (w *writer) doubt(name string, before, after published, kept []string) {
	gone := before.vanished(after, without(before.values(), kept), func(server) bool { return true })
	if len(gone) > 0 {
		w.logger.Warn("values that only some of the name servers showed are gone; add them again if nobody has removed them on purpose",
			zap.String("name", name), zap.Strings("values", foreign.Values(gone)))
	}
}

// patience is how long to wait for a change that has ended with wrote.
func (w *writer) patience(wrote error) time.Duration {
	patience := cmp.Or(w.Wait, DefaultWait)
	if wrote != nil {
		patience = min(patience, afterFailure*cmp.Or(w.Interval, defaultInterval))
	}
	return patience
}

// lastLook is what is published after a call that was cut off because ctx has ended, if it can be seen,
// else what was seen before: nobody may come back to see what it has done until then.
func (w *writer) lastLook(ctx context.Context, name string, before published) published {
	if ctx.Err() == nil {
		return before
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastLook)
	defer cancel()
	if shown, err := w.read(ctx, name); err == nil {
		return shown
	}
	return before
}

// errTooLong ends a wait.
var errTooLong = errors.New("it took too long")

// look calls fn until it is done, or for as long as patience lasts.
func (w *writer) look(ctx context.Context, patience time.Duration, fn func() (done bool, err error)) error {
	limit := time.NewTimer(patience)
	defer limit.Stop()
	tick := time.NewTicker(cmp.Or(w.Interval, defaultInterval))
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

// ttlAt is the TTL of what is written: that of a name's record set is the same for all of it.
func (o *Options) ttlAt(p published) time.Duration { return cmp.Or(p.ttl, o.TTL, DefaultTTL) }

// redact takes the provider's secrets out of an error.
func (o *Options) redact(err error) error { return redactError(err, o.Secrets) }

// shows is true of a server that has all of the values, lacks of one that has not the value.
func shows(values ...string) func(server) bool {
	return func(s server) bool { return len(without(values, s.values)) == 0 }
}

func lacks(value string) func(server) bool {
	return func(s server) bool { return !slices.Contains(s.values, value) }
}

// without returns those of list that are not in other, each once.
func without(list, other []string) []string {
	var rest []string
	for _, v := range list {
		if !slices.Contains(other, v) && !slices.Contains(rest, v) {
			rest = append(rest, v)
		}
	}
	return rest
}
