package account

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
)

// files are the accounts in storage: ours, and those of `acme`. Nothing here asks the CA.
type files struct {
	Config
	store  state.Store
	logger *zap.Logger
}

func newFiles(cfg Config) files {
	return files{Config: cfg, store: cfg.CA.Store, logger: cfg.CA.Logger}
}

// load is state.Store.Load for a binding. Directories that differ in their scheme or query share a
// folder; an account is one CA's.
func (f *files) load(ctx context.Context, key string) (bound binding, found bool, err error) {
	found, err = f.store.Load(ctx, key, &bound)
	bound.at = key
	if err == nil && found && bound.CA != "" && bound.CA != f.CA.URL {
		return binding{}, false, &Error{CA: f.CA.URL, URL: bound.URL, Err: fmt.Errorf(
			"%s in storage is the account of the directory %s, which shares this folder, and no account is used at another directory: "+
				"write %s where both are the same CA, or give one of the two a storage of its own", key, bound.CA, bound.CA)}
	}
	return bound, found, err
}

// key is where the account lies in storage: one file for each CA, and one
// more for each account that is pinned by its key.
func (f *files) key() (string, error) {
	if f.PinnedKeyPEM == "" {
		return f.store.Key("account.json"), nil
	}
	key, err := binding{KeyPEM: f.PinnedKeyPEM}.signer()
	if err != nil {
		return "", &Error{CA: f.CA.URL, URL: f.PinnedURL, Err: fmt.Errorf("account_key: %w", err)}
	}
	pinned, err := newBinding(f.CA.URL, originKey, key, nil)
	if err != nil {
		return "", err
	}
	return f.store.Key("account_" + pinned.Thumbprint + ".json"), nil
}

// finished returns the finished binding at key. One without a URL is a
// registration that was cut short.
func (f *files) finished(ctx context.Context, key string) (binding, bool, error) {
	bound, found, err := f.load(ctx, key)
	if err != nil || !found || bound.URL == "" {
		return binding{}, false, err
	}
	if want := f.PinnedURL; want != "" && bound.URL != want {
		other, ok, err := f.byURL(ctx, want)
		if err != nil || ok {
			return other, ok, err
		}
		return binding{}, false, &Error{CA: f.CA.URL, URL: want, Err: fmt.Errorf(
			"account_url names it, but the account in storage is %s and no key for the configured one is there: "+
				"restore its key, or set account_key, or correct account_url", bound.URL)}
	}
	return bound, true, nil
}

// known returns the binding without making one. It asks nobody.
func (f *files) known(ctx context.Context) (binding, bool, error) {
	key, err := f.key()
	if err != nil {
		return binding{}, false, err
	}
	bound, found, err := f.finished(ctx, key)
	if err != nil || found || f.PinnedURL == "" || f.PinnedKeyPEM != "" {
		return bound, found, err
	}
	// one that was pinned by its key before
	return f.ownByURL(ctx, f.PinnedURL)
}

// mustKnow is known where one is needed.
func (f *files) mustKnow(ctx context.Context) (binding, error) {
	bound, found, err := f.known(ctx)
	if err != nil || found {
		return bound, err
	}
	key, err := f.key()
	if err != nil {
		return binding{}, err
	}
	if _, begun, err := f.load(ctx, key); err != nil {
		return binding{}, err
	} else if begun {
		return binding{}, fmt.Errorf("%w at %s: its registration was cut short (%s in storage has no URL yet); "+
			"`caddy dns-persist account --register` or a start of Caddy finishes it", ErrNoAccount, f.CA.URL, key)
	}
	missing := fmt.Errorf("%w at %s in this storage (there is no %s): check that this is the storage and the CA of the sites", ErrNoAccount, f.CA.URL, key)
	if f.PinnedURL != "" {
		return binding{}, fmt.Errorf("%w; bring %s, which account_url names, with `caddy dns-persist account import`, or give its key with account_key", missing, f.PinnedURL)
	}
	return binding{}, fmt.Errorf("%w; bind one with `caddy dns-persist account --register` or a start of Caddy, or bring one with `caddy dns-persist account import`", missing)
}

// ownFiles returns all bindings of this CA in our folder.
func (f *files) ownFiles(ctx context.Context) ([]binding, error) {
	keys, err := f.store.List(ctx, "")
	if err != nil {
		return nil, err
	}
	var all []binding
	for _, k := range keys {
		if !strings.HasPrefix(path.Base(k), "account") {
			continue
		}
		bound, found, err := f.load(ctx, k)
		if err != nil {
			return nil, err
		}
		if found {
			all = append(all, bound)
		}
	}
	return all, nil
}

// ownByURL looks for an account in our own files only. Of several copies the one with the
// latest key counts.
func (f *files) ownByURL(ctx context.Context, url string) (best binding, found bool, err error) {
	all, err := f.ownFiles(ctx)
	if err != nil {
		return binding{}, false, err
	}
	for _, b := range all {
		if b.URL == url && (!found || slices.Contains(b.EarlierThumbprints, best.Thumbprint)) {
			best, found = b, true
		}
	}
	return best, found, nil
}

// keep writes a complete binding.
func (f *files) keep(ctx context.Context, storageKey string, bound binding) (binding, error) {
	bound.at = storageKey
	if err := f.store.Save(ctx, storageKey, bound); err != nil {
		return binding{}, err
	}
	f.logger.Info("bound the ACME account; back this file up, every record names the account",
		zap.String("ca", bound.CA), zap.String("account", bound.URL), zap.String("origin", bound.Origin), zap.String("storage_key", storageKey))
	return bound, nil
}

// save writes a binding that has changed, and its copies: an account that was pinned
// by its key once has two files.
func (f *files) save(ctx context.Context, bound binding) (binding, error) {
	if bound.at == "" {
		bound.at = f.store.Key("account_" + bound.Thumbprint + ".json")
	}
	if err := f.store.Save(ctx, bound.at, bound); err != nil {
		return binding{}, err
	}
	all, err := f.ownFiles(ctx)
	if err != nil {
		return binding{}, err
	}
	for _, b := range all {
		if b.URL == bound.URL && b.at != bound.at {
			if err := f.store.Save(ctx, b.at, bound); err != nil {
				return binding{}, err
			}
		}
	}
	return bound, nil
}

// keepCutShort keeps the key of a registration that was cut short, for whatever came of it.
func (f *files) keepCutShort(ctx context.Context, key string) error {
	if key == "" {
		return nil
	}
	begun, found, err := f.load(ctx, key)
	if err != nil || !found || begun.URL != "" {
		return err
	}
	return f.store.Save(ctx, f.lostKey(begun), begun)
}

// isBound reports whether the file is a finished binding of the account.
func (f *files) isBound(ctx context.Context, key, url string) bool {
	there, found, err := f.load(ctx, key)
	return err == nil && found && there.URL == url
}

// warnOfOthers logs that accounts are bound here which account_key has pinned before: where it
// was taken out of the configuration, records name them and not the new one.
func (f *files) warnOfOthers(ctx context.Context) error {
	all, err := f.ownFiles(ctx)
	if err != nil {
		return err
	}
	for _, b := range all {
		if b.URL == "" || !b.DeactivatedAt.IsZero() {
			continue
		}
		f.logger.Warn("another account is bound beside one that account_key has pinned; "+
			"if records name that one and account_key was removed, set account_url to it: its key is in storage",
			zap.String("ca", f.CA.URL), zap.String("pinned_account", b.URL), zap.String("storage_key", b.at))
	}
	return nil
}

// contact is that of an account that has to be registered.
func (f *files) contact() []string {
	if email := strings.ToLower(strings.TrimSpace(f.Email)); email != "" {
		return []string{"mailto:" + email}
	}
	return nil
}

// locked runs fn under the lock that is held while the account is changed, unless done reports that
// another job has done the work.
func (f *files) locked(ctx context.Context, done func() (bool, error), fn func() error) error {
	return f.store.Locked(ctx, "dns_persist_account_"+state.Safe(state.IssuerKey(f.CA.URL)), done, fn)
}
