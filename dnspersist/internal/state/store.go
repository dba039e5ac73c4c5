// Package state keeps what is remembered of a CA as JSON in a storage: one folder for each CA,
// apart from CertMagic's own folders, which CertMagic deletes and replaces.
package state

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"path"
	"strings"

	"github.com/caddyserver/certmagic"
)

// Root is the folder that has the folders of all CAs.
const Root = "dns_persist"

// IssuerKey returns the storage key under which CertMagic files certificates of
// the CA with the given directory URL. It is the key of CertMagic's own ACME
// issuer on purpose: a site that moves between the two keeps its certificate.
func IssuerKey(directory string) string {
	u, err := url.Parse(directory)
	if err != nil {
		return directory
	}
	key := u.Host
	trimmed := strings.Trim(strings.NewReplacer("/", "-", "\\", "-").Replace(u.Path), "-")
	if trimmed != "" {
		key += "-" + trimmed
	}
	return key
}

// Safe makes one part of a storage key of a name.
func (Store) Safe(name string) string { return safe(name) }

func safe(name string) string { return certmagic.StorageKeys.Safe(name) }

// Store keeps the state of one CA in a storage.
type Store struct {
	Storage certmagic.Storage
	// Folder is the state's prefix, one for each CA.
	Folder string
}

// New returns the store of the CA with the given directory URL.
func New(storage certmagic.Storage, directory string) Store {
	return Store{Storage: storage, Folder: path.Join(Root, safe(IssuerKey(directory)))}
}

// Key is the storage key of a file in the CA's folder.
func (s Store) Key(parts ...string) string {
	return path.Join(append([]string{s.Folder}, parts...)...)
}

// Load decodes the JSON at key into v. found is false if there is nothing there.
func (s Store) Load(ctx context.Context, key string, v any) (found bool, err error) {
	data, err := s.Storage.Load(ctx, key)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if errors.Is(err, fs.ErrPermission) {
		return false, fmt.Errorf("reading %s from storage: %w; run this as the user that Caddy runs as", key, err)
	}
	if err != nil {
		return false, fmt.Errorf("reading %s from storage: %w", key, err)
	}
	if err := json.Unmarshal(data, v); err != nil {
		return false, fmt.Errorf("reading %s from storage: the file is damaged, restore it from a backup or remove it: %w", key, err)
	}
	return true, nil
}

// Save writes v as JSON.
func (s Store) Save(ctx context.Context, key string, v any) error {
	data, err := json.MarshalIndent(v, "", "\t")
	if err != nil {
		return fmt.Errorf("encoding %s: %w", key, err)
	}
	if err := s.Storage.Store(ctx, key, data); err != nil {
		return fmt.Errorf("writing %s to storage: %w", key, err)
	}
	return nil
}

// Remove removes a file. It is no error if there is none.
func (s Store) Remove(ctx context.Context, key string) error {
	if err := s.Storage.Delete(ctx, key); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing %s from storage: %w", key, err)
	}
	return nil
}

// Locked runs fn while holding the storage-wide lock name, which other nodes of
// a cluster respect. The lock is released even when ctx has ended meanwhile. done is
// asked once it is this job's turn in the process: true means that another job has
// done the work, and fn is not run. It may be nil.
func (s Store) Locked(ctx context.Context, name string, done func() (bool, error), fn func() error) error {
	release, err := takeTurn(ctx, name)
	if err != nil {
		return err
	}
	defer release()
	if done != nil {
		if ok, err := done(); ok || err != nil {
			return err
		}
	}
	if err := s.Storage.Lock(ctx, name); err != nil {
		return fmt.Errorf("acquiring storage lock %s: %w", name, err)
	}
	defer func() { _ = s.Storage.Unlock(context.WithoutCancel(ctx), name) }()
	return fn()
}
