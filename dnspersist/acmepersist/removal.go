package acmepersist

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/publish"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
)

// remove removes a value that the inventory has, and forgets it. With unless, what stands is
// read again, and the value stays if it says so.
func (w *writing) remove(ctx context.Context, value string, unless func(others []string) bool) (publish.Removed, error) {
	var done publish.Removed
	err := w.locked(ctx, func() error {
		if unless != nil {
			stands, err := w.read(ctx, w.target.Name)
			if err != nil {
				return w.clean(err)
			}
			if others := slices.DeleteFunc(stands.Everywhere(), func(v string) bool { return v == value }); unless(others) {
				return errStays
			}
		}
		entries, err := w.iss.Inventory().At(ctx, w.target.Name)
		if err != nil {
			return err
		}
		writer := w.writer()
		var left publish.Entry
		if i := slices.IndexFunc(entries, func(e publish.Entry) bool { return e.Value == value }); i >= 0 {
			left = entries[i]
			now := time.Now().UTC()
			left.Beside = leftBy(left, now)
			if left.RemovingAt.IsZero() {
				left.RemovingAt = now
			}
			// a removal that is cut short is ended like a write
			writer.Note = func(ctx context.Context, beside []string) error {
				e := left
				if e.Beside = join(left.Beside, beside); len(missing(left.Beside, beside)) == 0 {
					e.RemovingAt = now // nothing of an earlier try is missing
				}
				return w.iss.Inventory().Note(ctx, e)
			}
		}
		if done, err = writer.Remove(ctx, w.target.Name, value); err != nil {
			return err
		}
		if len(left.Beside) > 0 {
			return w.end(ctx, left)
		}
		return w.forget(ctx, value)
	})
	return done, err
}

// forget takes a value out of the inventory that we have removed. What is noted for another CA
// at the same name must not bring it back.
func (w *writing) forget(ctx context.Context, value string) error {
	if err := w.iss.Inventory().Forget(ctx, w.target.Name, value); err != nil {
		return err
	}
	folders, err := w.store.Storage.List(ctx, state.Root, false)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("listing %s in storage: %w", state.Root, err)
	}
	for _, folder := range folders {
		if folder == w.store.Folder {
			continue
		}
		other := &publish.Inventory{Store: state.Store{Storage: w.store.Storage, Folder: folder, Logger: w.logger}}
		if err := other.ForgetBeside(ctx, w.target.Name, value); err != nil {
			return err
		}
	}
	return nil
}

// errStays says that a value is needed by now.
var errStays = errors.New("it is needed now")
