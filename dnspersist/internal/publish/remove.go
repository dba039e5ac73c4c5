package publish

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/libdns/libdns"
	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/foreign"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

// ErrNeeded means that a value was not removed, for it is needed.
var ErrNeeded = errors.New("it is needed now")

// errNoRemoval means that a provider can only add.
var errNoRemoval = errors.New("the provider cannot remove records: remove the value by hand")

// Removed is what a removal has done.
type Removed struct {
	// Gone is false if the value was not published.
	Gone bool
	// Restored are other values that the provider had removed with it.
	Restored []string
}

// Remove removes a value that the inventory has, and forgets it. isNeeded may be nil; else the servers are
// read again, and the value stays with ErrNeeded if it returns true for those beside it.
func (k *Keeper) Remove(ctx context.Context, at propagation.Target, value string, isNeeded func(others []string) bool) (Removed, error) {
	c := k.change(at)
	var done Removed
	err := c.locked(ctx, func() (err error) {
		if isNeeded != nil {
			published, err := c.read(ctx, at.Name)
			if err != nil {
				return c.Options.redact(err)
			}
			if isNeeded(without(published.everywhere(), []string{value})) {
				return ErrNeeded
			}
		}
		done, err = c.remove(ctx, value)
		return err
	})
	return done, err
}

func (c *change) remove(ctx context.Context, value string) (done Removed, err error) {
	entries, err := c.Inventory().At(ctx, c.at.Name)
	if err != nil {
		return done, err
	}
	writer := c.writer()
	var left Entry
	if i := slices.IndexFunc(entries, func(e Entry) bool { return e.Value == value }); i >= 0 {
		left = entries[i]
		now := time.Now().UTC()
		left.Beside = leftBy(left, now)
		if left.RemovingAt.IsZero() {
			left.RemovingAt = now
		}
		// a removal that is cut short is ended like a write
		writer.note = func(ctx context.Context, beside []string) error {
			e := left
			if e.Beside = join(left.Beside, beside); len(without(left.Beside, beside)) == 0 {
				e.RemovingAt = now // nothing of an earlier try is missing
			}
			return c.Inventory().Note(ctx, e)
		}
	}
	if done, err = writer.remove(ctx, c.at.Name, value); err != nil {
		return done, err
	}
	if len(left.Beside) > 0 {
		return done, c.finish(ctx, left)
	}
	return done, c.forget(ctx, value)
}

// forget takes a value that was removed out of the inventory. What is noted for another CA
// at the same name must not bring it back.
func (c *change) forget(ctx context.Context, value string) error {
	if err := c.Inventory().forget(ctx, c.at.Name, value); err != nil {
		return err
	}
	folders, err := c.Store.Storage.List(ctx, state.Root, false)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("listing %s in storage: %w", state.Root, err)
	}
	for _, folder := range folders {
		if folder == c.Store.Folder {
			continue
		}
		other := &Inventory{Store: state.Store{Storage: c.Store.Storage, Folder: folder, Logger: c.Logger}}
		if err := other.forgetBeside(ctx, c.at.Name, value); err != nil {
			return err
		}
	}
	return nil
}

// remove removes exactly one value from a name and leaves all others. Whether the value is ours
// to remove is for the caller to know, see Inventory.
func (w *writer) remove(ctx context.Context, name, value string) (done Removed, err error) {
	deleter, ok := w.Provider.(libdns.RecordDeleter)
	switch {
	case !ok:
		return done, fmt.Errorf("removing from %s: %w: %q", name, errNoRemoval, value)
	case name == "" || value == "":
		// to a provider, nothing means everything
		return done, errors.New("removing: neither the name nor the value may be empty")
	}
	before, err := w.settled(ctx, name)
	if err != nil {
		return done, w.redact(fmt.Errorf("removing from %s: the values published there are not known, so nothing was removed: %w", name, err))
	}
	if !slices.Contains(before.values(), value) {
		return done, nil
	}
	if err := w.note(ctx, without(before.everywhere(), []string{value})); err != nil {
		return done, fmt.Errorf("removing from %s: nothing was removed: %w", name, err)
	}
	// without a TTL, which would have to match
	gone := libdns.TXT{Name: libdns.RelativeName(name, before.zone), Text: value}
	wrote := w.inZone(ctx, before.zone, providerCall{OperationRemove, func(ctx context.Context) error {
		_, err := deleter.DeleteRecords(ctx, before.zone+".", []libdns.Record{gone})
		return err
	}})
	after, first, err := w.settleWithout(ctx, name, value, wrote)
	if err != nil {
		err = w.redact(fmt.Errorf("removing from %s: %w", name, err))
	}
	done.Gone = err == nil
	// what the servers had that had the change first is kept, see write
	kept := without(before.common(first), []string{value})
	lost := before.vanished(after, kept, lacks(value))
	w.doubt(name, before, after, append(kept, value))
	if len(lost) == 0 {
		return done, err
	}
	w.logger.Warn("the provider has removed values that are not ours; putting them back",
		zap.String("name", name), zap.Strings("values", foreign.Values(lost)))
	// all, for it may be one that replaces where it should add as well
	if err := w.restore(ctx, name, before, lost, kept); err != nil {
		return done, err
	}
	done.Restored = lost
	return done, err
}

// settleWithout waits until no server shows the value any more. first are the servers that
// lacked it first.
func (w *writer) settleWithout(ctx context.Context, name, value string, wrote error) (after published, first []string, err error) {
	patience := w.patience(wrote)
	err = w.look(ctx, patience, func() (bool, error) {
		shown, err := w.read(ctx, name)
		if err != nil {
			return false, nil //nolint:nilerr // asked again
		}
		after = shown
		if first == nil {
			first = shown.where(lacks(value))
		}
		return !slices.Contains(shown.values(), value), nil
	})
	switch {
	case err != nil && wrote != nil:
		return w.lastLook(ctx, name, after), first, wrote
	case errors.Is(err, errTooLong):
		return after, first, fmt.Errorf("the provider has taken it, but the name servers still show %q after %s: it may still go, look again later", value, patience)
	}
	return after, first, err
}

const (
	// retireAfter is the default of Options.RetireAfter, and interestEvery how often it is noted that
	// a record which was written on demand is wanted.
	retireAfter   = 7 * 24 * time.Hour
	interestEvery = 24 * time.Hour
)

// Need is what a name needs of the values that are published for it.
type Need struct {
	// Requirement is what the CA wants, for all names that share the record.
	Requirement record.Requirement
	// AnyDomain is true if a value has to serve several domains.
	AnyDomain bool
	// Margin is how long before its end a value is followed by another one.
	Margin time.Duration
	// Accepted are the values that the CA has accepted for the account.
	Accepted []string
}

// IsMet reports whether one of the values is all that is needed, for long enough.
func (n Need) IsMet(values []string, now time.Time) bool {
	for _, v := range record.Evaluate(values, n.Requirement, now).Verdicts {
		if n.AnyDomain && !n.Requirement.ServesAnyDomain(v.Value) {
			continue // others share the name
		}
		if v.Outlook == record.OutlookGood && (v.Value.PersistUntil.IsZero() || v.Value.PersistUntil.Sub(now) > n.Margin) {
			return true
		}
	}
	return false
}

// Retire removes the values of ours that nobody wants any more. A value is only removed where
// one that does as much is published, and the CA has accepted that one.
func (k *Keeper) Retire(ctx context.Context, at propagation.Target, published []string, need Need) error {
	entries, err := k.Inventory().At(ctx, at.Name)
	if err != nil {
		return err
	}
	now := time.Now()
	for _, e := range entries {
		if need.IsMet([]string{e.Value}, now) {
			if err := k.noteWanted(ctx, at, e, cmp.Or(k.Options.RetireAfter, retireAfter)/7); err != nil {
				return err
			}
			continue
		}
		if !k.Owns(e) && slices.Contains(published, e.Value) && need.IsMet(published, now) {
			// it does not name the bound account, so nobody can be sure that it is nobody's
			k.Logger.Info("a record that was written for a former account or key is published beside the one in use; remove it by hand if no other Caddy uses that account",
				zap.String("name", at.Name), zap.String("value", e.Value), zap.String("account", e.Account), zap.String("ca", k.identity.CA))
		}
		others := without(published, []string{e.Value})
		if !k.isRetired(e, others, need, now) {
			continue
		}
		done, err := k.Remove(ctx, at, e.Value, func(others []string) bool { return !k.isRetired(e, others, need, now) })
		if errors.Is(err, ErrNeeded) {
			continue
		}
		if err != nil {
			return err
		}
		published = others
		k.Logger.Info("removed a record of ours that nothing needs any more",
			zap.String("name", at.Name), zap.String("value", e.Value), zap.Bool("was_published", done.Gone), zap.String("ca", k.identity.CA))
	}
	return nil
}

// isRetired reports whether a value of ours may go, others being those beside it.
func (k *Keeper) isRetired(e Entry, others []string, need Need, now time.Time) bool {
	if !k.Owns(e) || !e.UnusedFor(cmp.Or(k.Options.RetireAfter, retireAfter), now) || !need.IsMet(others, now) {
		return false
	}
	was, err := record.Parse(e.Value)
	if err != nil {
		return false
	}
	wide := need.Requirement
	wide.Wildcard = wide.Wildcard || was.Wildcard
	if !record.Evaluate(others, wide, now).Good() {
		return false // nothing is narrowed
	}
	ended := !e.EndsAt.IsZero() && now.After(e.EndsAt)
	return ended || slices.ContainsFunc(need.Accepted, func(v string) bool {
		return need.IsMet([]string{v}, now) && slices.Contains(others, v)
	})
}

// NoteInterest notes that the records at a place which were written on demand are wanted: an attempt is
// made after a handshake or a retry, and each with the permission.
func (k *Keeper) NoteInterest(ctx context.Context, at propagation.Target) error {
	entries, err := k.Inventory().known(ctx, at.Name)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.OnDemand {
			continue
		}
		if err := k.noteWanted(ctx, at, e, interestEvery); err != nil {
			return err
		}
	}
	return nil
}

// noteWanted notes that a value of ours is wanted, where that was noted so long ago.
func (k *Keeper) noteWanted(ctx context.Context, at propagation.Target, e Entry, every time.Duration) error {
	now := time.Now()
	if now.Sub(e.WantedAt) < every {
		return nil
	}
	return k.change(at).locked(ctx, func() error {
		entries, err := k.Inventory().At(ctx, at.Name)
		i := slices.IndexFunc(entries, func(o Entry) bool { return o.Value == e.Value })
		if err != nil || i < 0 {
			return err // removed meanwhile
		}
		entries[i].WantedAt = now.UTC()
		return k.Inventory().Note(ctx, entries[i])
	})
}
