package acmepersist

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"
)

// reloadAccount is how long the binding is used without looking whether another process
// has changed it.
const reloadAccount = 10 * time.Second

// bind loads the bound account, or binds one: the pinned key's, else the one that
// `acme` has for this CA, else a new one, once for a cluster. Another process may roll the
// key over or import one, so storage is looked at again from time to time.
func (s *session) bind(ctx context.Context) error {
	s.iss.mu.Lock()
	bound, due := s.iss.bound, time.Since(s.iss.boundAt) >= s.iss.reloadAccount()
	if due {
		// the others go on with what is there
		s.iss.boundAt = time.Now()
	}
	s.iss.mu.Unlock()
	if bound != nil && !due {
		return s.use(*bound)
	}
	var fresh boundAccount
	var err error
	if bound == nil {
		fresh, err = s.loadOrBind(ctx)
	} else {
		fresh, err = s.reload(ctx, *bound)
	}
	if err != nil {
		return err
	}
	fresh = s.settlePending(ctx, fresh)
	s.iss.rememberBound(fresh)
	return s.use(fresh)
}

// reload reads the binding again. One that has vanished while it is in use is not
// replaced: the account is there as long as this process has its key.
func (s *session) reload(ctx context.Context, bound boundAccount) (boundAccount, error) {
	fresh, found, err := s.knownBinding(ctx)
	if err != nil {
		return boundAccount{}, err
	}
	s.iss.mu.Lock()
	was := s.iss.boundGone
	s.iss.boundGone = !found
	s.iss.mu.Unlock()
	if found {
		return fresh, nil
	}
	if !was {
		s.logger.Error("the bound ACME account is no longer in storage; going on with the one in memory until the process ends: restore the file from a backup",
			zap.String("ca", bound.CA), zap.String("account", bound.URL), zap.String("storage_key", bound.at))
	}
	return bound, nil
}

func (iss *Issuer) rememberBound(bound boundAccount) {
	iss.mu.Lock()
	defer iss.mu.Unlock()
	iss.bound, iss.boundAt = &bound, time.Now()
}

// forgetBound makes the next bind read storage, and the next check ask the CA.
func (iss *Issuer) forgetBound() {
	iss.mu.Lock()
	defer iss.mu.Unlock()
	iss.bound, iss.boundGone, iss.checkedURL = nil, false, ""
}

// use makes the session one of the account.
func (s *session) use(bound boundAccount) error {
	if !bound.DeactivatedAt.IsZero() {
		return bound.ended(nil)
	}
	account, err := s.accountOf(bound)
	if err != nil {
		return &AccountError{CA: s.iss.CA, URL: bound.URL, Err: err}
	}
	s.account = account
	// from the key itself: a record with the thumbprint of another one is of no use
	if s.thumbprint, err = s.account.Thumbprint(); err != nil {
		return &AccountError{CA: s.iss.CA, URL: bound.URL, Err: fmt.Errorf("computing the key's thumbprint: %w", err)}
	}
	s.earlierThumbprints = bound.EarlierThumbprints
	return nil
}

// accountOf is the account for the session's requests. A signature that the CA refuses is asked
// again if the key was changed just now.
func (s *session) accountOf(bound boundAccount) (acme.Account, error) {
	s.RolledAt = bound.RolledAt
	return bound.acme()
}

// knownBinding returns the binding without making one. It asks nobody.
func (s *session) knownBinding(ctx context.Context) (boundAccount, bool, error) {
	key, err := s.bindingKey()
	if err != nil {
		return boundAccount{}, false, err
	}
	bound, found, err := s.loadBinding(ctx, key)
	if err != nil || found || s.iss.AccountURL == "" || s.iss.AccountKeyPEM != "" {
		return bound, found, err
	}
	// one that was pinned by its key before
	return s.ownByURL(ctx, s.iss.AccountURL)
}

// mustKnow is knownBinding where one is needed.
func (s *session) mustKnow(ctx context.Context) (boundAccount, error) {
	bound, found, err := s.knownBinding(ctx)
	if err != nil || found {
		return bound, err
	}
	key, err := s.bindingKey()
	if err != nil {
		return boundAccount{}, err
	}
	if _, begun, err := s.store.loadBound(ctx, key); err != nil {
		return boundAccount{}, err
	} else if begun {
		return boundAccount{}, fmt.Errorf("%w at %s: its registration was cut short (%s in storage has no URL yet); "+
			"`caddy dns-persist account --register` or a start of Caddy finishes it", ErrNoAccount, s.iss.CA, key)
	}
	missing := fmt.Errorf("%w at %s in this storage (there is no %s): check that this is the storage and the CA of the sites", ErrNoAccount, s.iss.CA, key)
	if s.iss.AccountURL != "" {
		return boundAccount{}, fmt.Errorf("%w; bring %s, which account_url names, with `caddy dns-persist account import`, or give its key with account_key", missing, s.iss.AccountURL)
	}
	return boundAccount{}, fmt.Errorf("%w; bind one with `caddy dns-persist account --register` or a start of Caddy, or bring one with `caddy dns-persist account import`", missing)
}

// ownFiles returns all bindings of this CA in our folder.
func (s *session) ownFiles(ctx context.Context) ([]boundAccount, error) {
	keys, err := s.store.Storage.List(ctx, s.store.Folder, false)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("listing %s in storage: %w", s.store.Folder, err)
	}
	var all []boundAccount
	for _, k := range keys {
		if base := path.Base(k); !strings.HasPrefix(base, "account") || path.Ext(base) != ".json" {
			continue
		}
		bound, found, err := s.store.loadBound(ctx, k)
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
func (s *session) ownByURL(ctx context.Context, url string) (best boundAccount, found bool, err error) {
	all, err := s.ownFiles(ctx)
	if err != nil {
		return boundAccount{}, false, err
	}
	for _, b := range all {
		if b.URL == url && (!found || slices.Contains(b.EarlierThumbprints, best.Thumbprint)) {
			best, found = b, true
		}
	}
	return best, found, nil
}

// saveBinding writes a binding that has changed, and its copies: an account that was pinned
// by its key once has two files.
func (s *session) saveBinding(ctx context.Context, bound boundAccount) (boundAccount, error) {
	if bound.at == "" {
		bound.at = s.store.Key("account_" + bound.Thumbprint + ".json")
	}
	if err := s.store.Save(ctx, bound.at, bound); err != nil {
		return boundAccount{}, err
	}
	all, err := s.ownFiles(ctx)
	if err != nil {
		return boundAccount{}, err
	}
	for _, b := range all {
		if b.URL == bound.URL && b.at != bound.at {
			if err := s.store.Save(ctx, b.at, bound); err != nil {
				return boundAccount{}, err
			}
		}
	}
	return bound, nil
}

// accountLock is the name of the lock under which the binding is changed.
func (s *session) accountLock() string {
	return "dns_persist_account_" + s.store.Safe(IssuerKey(s.iss.CA))
}
