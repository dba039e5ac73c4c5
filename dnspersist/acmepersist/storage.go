package acmepersist

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

// storagePrefix is where this package keeps what it must not lose: apart from
// CertMagic's own folders, which CertMagic deletes and replaces.
const storagePrefix = "dns_persist"

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

// store keeps the state of one CA in a storage.
type store struct {
	storage certmagic.Storage
	// folder is the state's prefix, one for each CA.
	folder string
	// users is the folder in which CertMagic keeps the accounts of `acme`.
	users string
}

func newStore(storage certmagic.Storage, directory string) store {
	safe := certmagic.StorageKeys.Safe(IssuerKey(directory))
	return store{
		storage: storage,
		folder:  path.Join(storagePrefix, safe),
		users:   path.Join("acme", safe, "users"),
	}
}

func (s store) key(parts ...string) string {
	return path.Join(append([]string{s.folder}, parts...)...)
}

func (s store) safe(name string) string { return certmagic.StorageKeys.Safe(name) }

// load decodes the JSON at key into v. found is false if there is nothing there.
func (s store) load(ctx context.Context, key string, v any) (found bool, err error) {
	data, err := s.storage.Load(ctx, key)
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

// loadBound is load for a binding.
func (s store) loadBound(ctx context.Context, key string) (bound boundAccount, found bool, err error) {
	found, err = s.load(ctx, key, &bound)
	bound.at = key
	return bound, found, err
}

func (s store) save(ctx context.Context, key string, v any) error {
	data, err := json.MarshalIndent(v, "", "\t")
	if err != nil {
		return fmt.Errorf("encoding %s: %w", key, err)
	}
	if err := s.storage.Store(ctx, key, data); err != nil {
		return fmt.Errorf("writing %s to storage: %w", key, err)
	}
	return nil
}

func (s store) remove(ctx context.Context, key string) error {
	if err := s.storage.Delete(ctx, key); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing %s from storage: %w", key, err)
	}
	return nil
}

// locked runs fn while holding the storage-wide lock name, which other nodes of
// a cluster respect. The lock is released even when ctx has ended meanwhile. done is
// asked once it is this job's turn in the process: true means that another job has
// done the work, and fn is not run. It may be nil.
func (s store) locked(ctx context.Context, name string, done func() (bool, error), fn func() error) error {
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
	if err := s.storage.Lock(ctx, name); err != nil {
		return fmt.Errorf("acquiring storage lock %s: %w", name, err)
	}
	defer func() { _ = s.storage.Unlock(context.WithoutCancel(ctx), name) }()
	return fn()
}
