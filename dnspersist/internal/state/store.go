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
	"slices"
	"strings"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/fair"
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

// Safe makes one part of a storage key of a name, as CertMagic does: most names are safe as they are.
func Safe(name string) string {
	if !strings.Contains(name, "..") && !strings.ContainsFunc(name, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '.' && c != '-' && c != '_'
	}) {
		return name
	}
	return certmagic.StorageKeys.Safe(name)
}

// Store keeps the state of one CA in a storage.
type Store struct {
	Storage certmagic.Storage
	// Folder is the state's prefix, one for each CA.
	Folder string
	// Logger gets a warning of each file that cannot be read. May be nil.
	Logger *zap.Logger
}

// New returns the store of the CA with the given directory URL.
func New(storage certmagic.Storage, directory string) Store {
	return Store{Storage: storage, Folder: path.Join(Root, Safe(IssuerKey(directory)))}
}

// Key is the storage key of a file in the CA's folder.
func (s Store) Key(parts ...string) string {
	return path.Join(append([]string{s.Folder}, parts...)...)
}

// Load decodes the JSON at key into v, which stays as it is unless found. A file that cannot be read
// is an error if what it held cannot be had again; a cache is set aside, and counts as not there.
func (s Store) Load(ctx context.Context, key string, v any) (found bool, err error) {
	found, _, err = s.Recall(ctx, key, v)
	return found, err
}

// Recall is Load for a cache of which it matters that something was there: lost is true then.
func (s Store) Recall(ctx context.Context, key string, v any) (found, lost bool, err error) {
	err = s.read(ctx, key, v)
	if errors.Is(err, fs.ErrNotExist) {
		return false, false, nil
	}
	var damaged *DamagedError
	if cache, _ := s.kind(key); cache && errors.As(err, &damaged) {
		s.SetAside(ctx, damaged, "what it held is learned anew")
		return false, true, nil
	}
	return err == nil, false, err
}

func (s Store) read(ctx context.Context, key string, v any) error {
	data, err := s.Storage.Load(ctx, key)
	if err != nil && !errors.Is(err, fs.ErrNotExist) && ctx.Err() == nil {
		if damaged := s.damage(ctx, key, err); damaged != nil {
			return damaged
		}
	}
	if err != nil {
		return fmt.Errorf("reading %s from storage: %w", key, err)
	}
	if err := decode(data, v); err != nil {
		return &DamagedError{Key: key, Err: err, data: data}
	}
	return nil
}

// List returns the keys of the files in a folder, sorted. Those without ".json" are left
// out: a write of CertMagic that was cut short leaves such ones.
func (s Store) List(ctx context.Context, folder string) ([]string, error) {
	keys, err := s.Storage.List(ctx, s.Key(folder), false)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("listing %s in storage: %w", s.Key(folder), err)
	}
	keys = slices.DeleteFunc(keys, func(key string) bool { return path.Ext(key) != ".json" })
	slices.Sort(keys)
	return keys, nil
}

// Save writes v as JSON. It refuses a file that is in no list of kinds, for nobody knows whether it may
// be lost.
func (s Store) Save(ctx context.Context, key string, v any) error {
	if _, known := s.kind(key); !known {
		return fmt.Errorf("writing %s to storage: it is of no kind of file that is known", key)
	}
	data, err := json.MarshalIndent(v, "", "\t")
	if err != nil {
		return fmt.Errorf("encoding %s: %w", key, err)
	}
	if err := s.Storage.Store(ctx, key, data); err != nil {
		return fmt.Errorf("writing %s to storage: %w", key, err)
	}
	asides.Delete(s.aside(key))
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
	wait := s.reportWait(name)
	defer wait.end()
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
	wait.hasTurn()
	if err := s.Storage.Lock(ctx, name); err != nil {
		if ctx.Err() == nil {
			return fmt.Errorf("acquiring storage lock %s: %w; if nobody holds it, %s", name, err, s.removing(name))
		}
		return fmt.Errorf("acquiring storage lock %s: %w", name, err)
	}
	wait.end()
	defer func() { _ = s.Storage.Unlock(context.WithoutCancel(ctx), name) }()
	return fn()
}

// Target is what is remembered of the target of a delegation: for which domains a record is published there,
// the first one first, and whether it has to serve wildcards. It only grows, for what is published is never
// narrowed.
type Target struct {
	Domains  []string `json:"domains"`
	More     bool     `json:"more,omitempty"` // there are others, which are not listed
	Wildcard bool     `json:"wildcard,omitempty"`
	// Incomplete is true if a file was lost: domains that have not come by since are not listed.
	Incomplete bool `json:"incomplete,omitempty"`
}

// Check reports what a file has to hold.
func (t *Target) Check() error {
	if len(t.Domains) == 0 && !t.Incomplete {
		return errors.New("domains are missing")
	}
	return nil
}

// mostDomains is how many domains are listed.
const mostDomains = 100

// IsStranger reports whether a domain shares a label with another owner's, who came first: a
// registered domain has one owner.
func (t Target) IsStranger(domain string) bool {
	return len(t.Domains) > 0 && fair.Domain(t.Domains[0]) != fair.Domain(domain)
}

// IsShared reports whether several domains of the owner who came first need the record, a domain
// included that may be the owner's as well.
func (t Target) IsShared(domain string) bool {
	first := domain
	if len(t.Domains) > 0 {
		first = t.Domains[0]
	}
	return slices.ContainsFunc(append([]string{domain}, t.Domains...), func(other string) bool {
		return other != first && fair.Domain(other) == fair.Domain(first)
	})
}

func (s Store) targetKey(name string) string { return s.Key("targets", Safe(name)+".json") }

// Target returns what is remembered of a target.
func (s Store) Target(ctx context.Context, name string) (t Target, err error) {
	_, lost, err := s.Recall(ctx, s.targetKey(name), &t)
	t.Incomplete = t.Incomplete || lost
	return t, err
}

// ForgetTarget forgets a target at which no record is published any more.
func (s Store) ForgetTarget(ctx context.Context, name string) error {
	return s.Remove(ctx, s.targetKey(name))
}

// JoinTarget notes that a domain's record is published at the target.
func (s Store) JoinTarget(ctx context.Context, name, domain string, wildcard bool) (Target, error) {
	t, err := s.Target(ctx, name)
	if err != nil || !t.join(domain, wildcard) {
		return t, err
	}
	err = s.Locked(ctx, "dns_persist_target_"+Safe(name), nil, func() error {
		if t, err = s.Target(ctx, name); err != nil || !t.join(domain, wildcard) {
			return err
		}
		return s.Save(ctx, s.targetKey(name), t)
	})
	return t, err
}

// join adds a domain, and reports whether that changes anything.
func (t *Target) join(domain string, wildcard bool) bool {
	wildcard = wildcard && !t.IsStranger(domain)
	known := t.More && len(t.Domains) >= mostDomains || slices.Contains(t.Domains, domain)
	if known && (t.Wildcard || !wildcard) {
		return false
	}
	t.Wildcard = t.Wildcard || wildcard
	switch {
	case known:
	case len(t.Domains) >= mostDomains:
		t.More = true
	default:
		t.Domains = append(t.Domains, domain)
	}
	return true
}
