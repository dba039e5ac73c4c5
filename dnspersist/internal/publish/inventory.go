package publish

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/foreign"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
)

// Inventory is what we have written into zones: the only thing that we may ever remove. It is
// noted before it is written, so that a process that dies in between leaves nothing behind
// that nobody knows of. Changes of one name are for the caller to keep apart.
//
// A file that cannot be read keeps what it lists from being removed, and nothing else.
type Inventory struct {
	Store state.Store
}

// folder is that of the entries in the store.
const folder = "published"

// entries are those of one name, as they are kept.
type entries []Entry

// Check reports what a file has to hold.
func (all *entries) Check() error {
	for _, e := range *all {
		if e.Name == "" || e.Value == "" {
			return errors.New("an entry without name or value")
		}
	}
	return nil
}

// Entry is one value that we have written, or were about to.
type Entry struct {
	// Name is the name, Zone the zone's apex, both without final dot.
	Name string `json:"name"`
	Zone string `json:"zone"`
	// Value is the whole TXT value.
	Value string `json:"value"`
	// CA and Account are the URLs that it was written for, Thumbprint that of the key.
	CA         string `json:"ca"`
	Account    string `json:"account"`
	Thumbprint string `json:"thumbprint"`
	// Beside are the values that were beside it when its write or removal was begun. A process
	// that ends before it has seen what a careless provider made of them leaves them to the
	// next one.
	Beside []string `json:"beside,omitempty"`
	// PutBack is how often values of Beside were put back.
	PutBack int `json:"put_back,omitempty"`
	// At is when it was noted, WrittenAt when the servers were seen to show it; zero until then.
	At        time.Time `json:"at"`
	WrittenAt time.Time `json:"written_at,omitzero"`
	// RemovingAt is when its removal was begun, zero if none was.
	RemovingAt time.Time `json:"removing_at,omitzero"`
	// WantedAt is when a configuration was last known to want the value.
	WantedAt time.Time `json:"wanted_at,omitzero"`
	// OnDemand is true if nothing but a name of on-demand TLS has wanted it.
	OnDemand bool `json:"on_demand,omitempty"`
	// EndsAt is the value's own end, zero if it has none.
	EndsAt time.Time `json:"ends_at,omitzero"`
}

// unfinished reports whether the end of a write or removal was not seen.
func (e Entry) unfinished() bool {
	return e.WrittenAt.IsZero() || !e.RemovingAt.IsZero() || len(e.Beside) > 0
}

// begun is when the write or removal was begun.
func (e Entry) begun() time.Time { return cmp.Or(e.RemovingAt, e.At) }

// UnusedFor reports whether nobody has wanted the value for so long.
func (e Entry) UnusedFor(d time.Duration, now time.Time) bool {
	return now.Sub(e.WantedAt) >= d && now.Sub(e.WrittenAt) >= d
}

func (i *Inventory) key(name string) (string, error) {
	// a name from elsewhere must not lead out of the folder
	if name == "" || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-_.") != "" || strings.Contains(name, "..") {
		return "", fmt.Errorf("inventory: %q is not a normalized name", name)
	}
	return i.Store.Key(folder, name+".json"), nil
}

// At returns the entries of a name.
func (i *Inventory) At(ctx context.Context, name string) ([]Entry, error) {
	key, err := i.key(name)
	if err != nil {
		return nil, err
	}
	return i.load(ctx, key)
}

func (i *Inventory) load(ctx context.Context, key string) ([]Entry, error) {
	var all entries
	_, err := i.Store.Load(ctx, key, &all)
	if errors.As(err, new(*state.DamagedError)) {
		return nil, fmt.Errorf("what was written into the zone is not known, and nothing is removed from it: %w", err)
	}
	return all, err
}

// known is At for a write: a file that cannot be read is set aside, and there are no entries.
func (i *Inventory) known(ctx context.Context, name string) ([]Entry, error) {
	all, err := i.At(ctx, name)
	var damaged *state.DamagedError
	if errors.As(err, &damaged) {
		i.Store.SetAside(ctx, damaged, "the records that it lists are never removed from DNS, unless it is restored")
		return nil, nil
	}
	return all, err
}

// Note adds an entry, or replaces the one of the same value.
func (i *Inventory) Note(ctx context.Context, e Entry) error {
	all, err := i.known(ctx, e.Name)
	if err != nil {
		return err
	}
	return i.save(ctx, e.Name, append(slices.DeleteFunc(all, func(o Entry) bool { return o.Value == e.Value }), e))
}

// forget takes the entry of a value that was removed out. It is not an error if there is none. Nor
// is the value put back any more where it was beside another one.
func (i *Inventory) forget(ctx context.Context, name, value string) error {
	all, err := i.At(ctx, name)
	if err != nil {
		return err
	}
	dropBeside(all, value)
	return i.save(ctx, name, slices.DeleteFunc(all, func(e Entry) bool { return e.Value == value }))
}

// forgetBeside is the second half of forget, for the inventories of other CAs.
func (i *Inventory) forgetBeside(ctx context.Context, name, value string) error {
	all, err := i.known(ctx, name)
	if err != nil || !dropBeside(all, value) {
		return err
	}
	return i.save(ctx, name, all)
}

// dropBeside has a value not put back, and reports whether it would have been.
func dropBeside(all []Entry, value string) (changed bool) {
	for n, e := range all {
		all[n].Beside = without(e.Beside, []string{value})
		changed = changed || len(all[n].Beside) < len(e.Beside)
	}
	return changed
}

func (i *Inventory) save(ctx context.Context, name string, all entries) error {
	key, err := i.key(name)
	if err != nil {
		return err
	}
	if len(all) == 0 {
		return i.Store.Remove(ctx, key)
	}
	return i.Store.Save(ctx, key, all)
}

// All returns every entry, by name. Files that cannot be read are errors beside those of the others.
func (i *Inventory) All(ctx context.Context) ([]Entry, error) {
	keys, err := i.Store.List(ctx, folder)
	if err != nil {
		return nil, err
	}
	var all []Entry
	var damaged []error
	for _, key := range keys {
		found, err := i.load(ctx, key)
		if err != nil {
			damaged = append(damaged, err)
		}
		all = append(all, found...)
	}
	return all, errors.Join(damaged...)
}

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
