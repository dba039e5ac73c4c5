package publish

import (
	"context"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/foreign"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
)

// unfinishedFor is how long the values that were beside a write which was cut short are put back: later,
// somebody may have removed them on purpose.
const unfinishedFor = 48 * time.Hour

// putBacks is how often they are put back while a change fails: a value that is gone again each
// time may be one that its owner does not want any more.
const putBacks = 3

// Finish ends writes and removals at a place that a process has begun and not seen the end
// of: what a provider has taken away with them is put back, and what the servers show is noted.
func (k *Keeper) Finish(ctx context.Context, at propagation.Target) error {
	begun := func() ([]Entry, error) {
		entries, err := k.Inventory().known(ctx, at.Name)
		return slices.DeleteFunc(entries, func(e Entry) bool { return !e.unfinished() }), err
	}
	if all, err := begun(); err != nil || len(all) == 0 {
		return err
	}
	c := k.change(at)
	return c.locked(ctx, func() error {
		all, err := begun() // another node may have ended them meanwhile
		if err != nil {
			return err
		}
		var going []string
		for _, e := range all {
			if !e.RemovingAt.IsZero() {
				going = append(going, e.Value)
			}
		}
		for _, e := range all {
			e.Beside = without(e.Beside, going)
			if err := c.finish(ctx, e); err != nil {
				return err
			}
		}
		return nil
	})
}

// finish ends what was begun with one value, as far as it can be: what was to be written and is not
// published may still come, or be written again, and so with what was to be removed.
func (c *change) finish(ctx context.Context, e Entry) error {
	published, err := c.read(ctx, c.at.Name)
	if err != nil {
		return c.Options.redact(err)
	}
	late := time.Since(e.begun()) > unfinishedFor
	back, err := c.putBack(ctx, e, published, late)
	if err != nil {
		return err
	}
	was, removing := e, !e.RemovingAt.IsZero()
	if len(back) > 0 {
		e.PutBack++
	}
	there := slices.Contains(published.values(), e.Value)
	// a server that is behind may still show what is lost
	if left := without(e.Beside, slices.Concat(published.everywhere(), back)); late || there != removing && len(left) == 0 {
		e.Beside = nil
	}
	switch {
	case removing && !there && len(e.Beside) == 0:
		return c.forget(ctx, e.Value)
	case removing && late:
		e.RemovingAt = time.Time{} // it has not gone, and is one like others
	case removing:
	case there && e.WrittenAt.IsZero():
		e.WrittenAt = time.Now().UTC()
	}
	if len(e.Beside) == 0 && !e.WrittenAt.IsZero() {
		e.PutBack = 0
	}
	if len(back) == 0 && slices.Equal(e.Beside, was.Beside) && e.WrittenAt.Equal(was.WrittenAt) && e.RemovingAt.Equal(was.RemovingAt) {
		return nil // still under way
	}
	return c.Inventory().Note(ctx, e)
}

// putBack writes the values that were beside a change which was cut short, and are gone. Whether the
// changed value is published proves nothing: some providers delete all first, and write then.
func (c *change) putBack(ctx context.Context, e Entry, published published, late bool) (back []string, err error) {
	lost := without(e.Beside, published.values())
	if len(lost) == 0 {
		return nil, nil
	}
	fields := []zap.Field{zap.String("name", e.Name), zap.Strings("values", foreign.Values(lost)), zap.Time("begun", e.begun())}
	if late || e.PutBack >= putBacks {
		c.Logger.Error("values that were published beside a change which was cut short are gone; add them again if nobody has removed them on purpose", fields...)
		return nil, nil
	}
	writer := c.writer()
	writer.note = func(ctx context.Context, beside []string) error {
		// this may be cut short as well
		e.Beside = join(e.Beside, without(beside, []string{e.Value}))
		return c.Inventory().Note(ctx, e)
	}
	if _, err := writer.add(ctx, e.Name, lost...); err != nil {
		return nil, err
	}
	c.Logger.Warn("a change was cut short, and the provider had taken away values that are not ours; they are published again", fields...)
	return lost, nil
}

// leftBy is what an unfinished change may have taken away, and is still to be put back.
func leftBy(e Entry, now time.Time) []string {
	if now.Sub(e.begun()) > unfinishedFor || e.PutBack >= putBacks {
		return nil
	}
	return e.Beside
}
