package acmepersist

import (
	"context"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/foreign"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/publish"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
)

// unfinishedFor is how long what stood beside a write that was cut short is put back: later,
// somebody may have removed it on purpose.
const unfinishedFor = 48 * time.Hour

// putBacks is how often it is put back while a change fails: a value that is gone again each
// time may be one that its owner does not want any more.
const putBacks = 3

// endWrites ends writes and removals of a name that a process has begun and not seen the end
// of: what a provider has taken away with them is put back, and what stands is noted.
func (s *session) endWrites(ctx context.Context, p *Publishing, checker *propagation.Checker, t propagation.Target) error {
	begun := func() ([]publish.Entry, error) {
		entries, err := s.iss.Inventory().Known(ctx, t.Name)
		return slices.DeleteFunc(entries, func(e publish.Entry) bool { return !e.Unfinished() }), err
	}
	if all, err := begun(); err != nil || len(all) == 0 {
		return err
	}
	w := s.writing(p, checker, t)
	return w.locked(ctx, func() error {
		all, err := begun() // by now another node may have ended them
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
			e.Beside = missing(e.Beside, going)
			if err := w.end(ctx, e); err != nil {
				return err
			}
		}
		return nil
	})
}

// end ends what was begun with one value, as far as it can be: what was to be written and does
// not stand may still come, or be written again, and so with what was to be removed.
func (w *writing) end(ctx context.Context, e publish.Entry) error {
	stands, err := w.read(ctx, w.target.Name)
	if err != nil {
		return w.clean(err)
	}
	late := time.Since(e.Begun()) > unfinishedFor
	back, err := w.putBack(ctx, e, stands, late)
	if err != nil {
		return err
	}
	was, removing := e, !e.RemovingAt.IsZero()
	if len(back) > 0 {
		e.PutBack++
	}
	there := slices.Contains(stands.Values(), e.Value)
	// a server that is behind may still show what is lost
	if left := missing(e.Beside, stands.Everywhere(), back); late || there != removing && len(left) == 0 {
		e.Beside = nil
	}
	switch {
	case removing && !there && len(e.Beside) == 0:
		return w.forget(ctx, e.Value)
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
	return w.iss.Inventory().Note(ctx, e)
}

// putBack writes what stood beside a change that was cut short, and is gone. Whether that
// value stands says nothing: some providers delete all first, and write then.
func (w *writing) putBack(ctx context.Context, e publish.Entry, stands publish.Standing, late bool) (back []string, err error) {
	lost := missing(e.Beside, stands.Values())
	if len(lost) == 0 {
		return nil, nil
	}
	fields := []zap.Field{zap.String("name", e.Name), zap.Strings("values", foreign.Values(lost)), zap.Time("begun", e.Begun())}
	if late || e.PutBack >= putBacks {
		w.logger.Error("values that stood beside a change which was cut short are gone; add them again if nobody has removed them on purpose", fields...)
		return nil, nil
	}
	writer := w.writer()
	writer.Note = func(ctx context.Context, beside []string) error {
		// this may be cut short as well
		e.Beside = join(e.Beside, missing(beside, []string{e.Value}))
		return w.iss.Inventory().Note(ctx, e)
	}
	if _, err := writer.Add(ctx, e.Name, lost...); err != nil {
		return nil, err
	}
	w.logger.Warn("a change was cut short, and the provider had taken away values that are not ours; they stand again", fields...)
	return lost, nil
}

// leftBy is what an unfinished change may have taken away, and is still to be put back.
func leftBy(e publish.Entry, now time.Time) []string {
	if now.Sub(e.Begun()) > unfinishedFor || e.PutBack >= putBacks {
		return nil
	}
	return e.Beside
}

// missing are those of the values that are in none of the lists.
func missing(values []string, lists ...[]string) []string {
	there := slices.Concat(lists...)
	return slices.DeleteFunc(slices.Clone(values), func(v string) bool { return slices.Contains(there, v) })
}

// join is both, each value once.
func join(a, b []string) []string { return append(slices.Clone(a), missing(b, a)...) }
