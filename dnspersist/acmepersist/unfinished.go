package acmepersist

import (
	"context"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/publish"
)

// unfinishedFor is how long what stood beside a write that was cut short is put back: later,
// somebody may have removed it on purpose.
const unfinishedFor = 48 * time.Hour

// endWrites ends writes of a name that a process has begun and not seen the end of: what a
// provider has taken away with them is put back, and what stands is noted.
func (s *session) endWrites(ctx context.Context, p *Publishing, checker *propagation.Checker, t propagation.Target) error {
	begun := func() ([]publish.Entry, error) {
		entries, err := s.iss.Inventory().At(ctx, t.Name)
		return slices.DeleteFunc(entries, func(e publish.Entry) bool { return !e.WrittenAt.IsZero() }), err
	}
	if all, err := begun(); err != nil || len(all) == 0 {
		return err
	}
	w := s.writing(p, checker, t)
	return w.locked(ctx, func() error {
		all, err := begun() // by now another node may have ended them
		if err != nil || len(all) == 0 {
			return err
		}
		stands, err := w.read(ctx, t.Name)
		if err != nil {
			return w.clean(err)
		}
		for _, e := range all {
			values := stands.Values()
			if !slices.Contains(values, e.Value) {
				continue // it was not written, and will be if it is missing
			}
			if err := w.putBack(ctx, e, values); err != nil {
				return err
			}
			e.WrittenAt, e.Beside = time.Now().UTC(), nil
			if err := s.iss.Inventory().Note(ctx, e); err != nil {
				return err
			}
		}
		return nil
	})
}

// putBack writes what stood beside a write that was cut short, and is gone.
func (w *writing) putBack(ctx context.Context, e publish.Entry, values []string) error {
	lost := slices.DeleteFunc(slices.Clone(e.Beside), func(v string) bool { return slices.Contains(values, v) })
	if len(lost) == 0 {
		return nil
	}
	fields := []zap.Field{zap.String("name", e.Name), zap.Strings("values", lost), zap.Time("begun", e.At)}
	if time.Since(e.At) > unfinishedFor {
		w.logger.Error("values that stood beside a write which was cut short are gone; add them again if nobody has removed them on purpose", fields...)
		return nil
	}
	if _, err := w.writer().Add(ctx, e.Name, lost...); err != nil {
		return err
	}
	w.logger.Warn("a write was cut short, and the provider had replaced values that are not ours; they stand again", fields...)
	return nil
}
