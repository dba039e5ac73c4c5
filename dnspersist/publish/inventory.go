package publish

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"
)

// Storage is what an Inventory needs of a certmagic.Storage.
type Storage interface {
	Load(ctx context.Context, key string) ([]byte, error)
	Store(ctx context.Context, key string, value []byte) error
	Delete(ctx context.Context, key string) error
	List(ctx context.Context, path string, recursive bool) ([]string, error)
}

// Inventory is what we have written into zones: the only thing that we may ever remove. It is
// noted before it is written, so that a process that dies in between leaves nothing behind
// that nobody knows of. Changes of one name are for the caller to keep apart.
type Inventory struct {
	Storage Storage
	// Folder is the key prefix of the entries.
	Folder string
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
	// Beside are the values that stood beside it when its write or removal was begun. A process
	// that ends before it has seen what a careless provider made of them leaves them to the
	// next one.
	Beside []string `json:"beside,omitempty"`
	// PutBack is how often values of Beside were put back.
	PutBack int `json:"put_back,omitempty"`
	// At is when it was noted, WrittenAt when it was seen to stand; zero until then.
	At        time.Time `json:"at"`
	WrittenAt time.Time `json:"written_at,omitzero"`
	// RemovingAt is when its removal was begun, zero if none was.
	RemovingAt time.Time `json:"removing_at,omitzero"`
	// WantedAt is when a configuration was last known to want the value.
	WantedAt time.Time `json:"wanted_at,omitzero"`
	// EndsAt is the value's own end, zero if it has none.
	EndsAt time.Time `json:"ends_at,omitzero"`
}

// Unfinished reports whether the end of a write or removal was not seen.
func (e Entry) Unfinished() bool {
	return e.WrittenAt.IsZero() || !e.RemovingAt.IsZero() || len(e.Beside) > 0
}

// Begun is when the write or removal was begun.
func (e Entry) Begun() time.Time {
	if e.RemovingAt.IsZero() {
		return e.At
	}
	return e.RemovingAt
}

func (i *Inventory) key(name string) (string, error) {
	// a name from elsewhere must not lead out of the folder
	if name == "" || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-_.") != "" || strings.Contains(name, "..") {
		return "", fmt.Errorf("inventory: %q is no normalized name", name)
	}
	return path.Join(i.Folder, name+".json"), nil
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
	data, err := i.Storage.Load(ctx, key)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the inventory %s: %w", key, err)
	}
	var all []Entry
	if err := json.Unmarshal(data, &all); err != nil {
		return nil, fmt.Errorf("reading the inventory %s: the file is damaged, restore it from a backup, or remove it: what it lists is then never removed from DNS: %w", key, err)
	}
	return all, nil
}

// Note adds an entry, or replaces the one of the same value.
func (i *Inventory) Note(ctx context.Context, e Entry) error {
	return i.change(ctx, e.Name, func(all []Entry) []Entry {
		return append(slices.DeleteFunc(all, func(o Entry) bool { return o.Value == e.Value }), e)
	})
}

// Forget takes the entry of a value that was removed out. It is no error if there is none. Nor
// is the value put back any more where it stood beside another one.
func (i *Inventory) Forget(ctx context.Context, name, value string) error {
	return i.change(ctx, name, func(all []Entry) []Entry {
		all = slices.DeleteFunc(all, func(o Entry) bool { return o.Value == value })
		for n := range all {
			all[n].Beside = without(all[n].Beside, []string{value})
		}
		return all
	})
}

// ForgetBeside is the second half of Forget, for the inventories of other CAs.
func (i *Inventory) ForgetBeside(ctx context.Context, name, value string) error {
	all, err := i.At(ctx, name)
	if err != nil || !slices.ContainsFunc(all, func(e Entry) bool { return slices.Contains(e.Beside, value) }) {
		return err
	}
	return i.change(ctx, name, func(all []Entry) []Entry {
		for n := range all {
			all[n].Beside = without(all[n].Beside, []string{value})
		}
		return all
	})
}

func (i *Inventory) change(ctx context.Context, name string, fn func([]Entry) []Entry) error {
	key, err := i.key(name)
	if err != nil {
		return err
	}
	all, err := i.load(ctx, key)
	if err != nil {
		return err
	}
	before := len(all)
	if all = fn(all); len(all) == 0 {
		if before == 0 {
			return nil
		}
		if err := i.Storage.Delete(ctx, key); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("changing the inventory %s: %w", key, err)
		}
		return nil
	}
	data, err := json.MarshalIndent(all, "", "\t")
	if err != nil {
		return fmt.Errorf("changing the inventory %s: %w", key, err)
	}
	if err := i.Storage.Store(ctx, key, data); err != nil {
		return fmt.Errorf("changing the inventory %s: %w", key, err)
	}
	return nil
}

// All returns every entry, by name.
func (i *Inventory) All(ctx context.Context) ([]Entry, error) {
	keys, err := i.Storage.List(ctx, i.Folder, false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing the inventory %s: %w", i.Folder, err)
	}
	slices.Sort(keys)
	var all []Entry
	for _, key := range keys {
		if path.Ext(key) != ".json" {
			continue
		}
		entries, err := i.load(ctx, key)
		if err != nil {
			return nil, err
		}
		all = append(all, entries...)
	}
	return all, nil
}
