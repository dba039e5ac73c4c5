package publish

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
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
func (e Entry) begun() time.Time {
	if e.RemovingAt.IsZero() {
		return e.At
	}
	return e.RemovingAt
}

// UnusedFor reports whether nobody has wanted the value for so long.
func (e Entry) UnusedFor(d time.Duration, now time.Time) bool {
	last := e.WantedAt
	if e.WrittenAt.After(last) {
		last = e.WrittenAt
	}
	return now.Sub(last) >= d
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
