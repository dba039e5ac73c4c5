package acmepersist

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"
)

// adopt copies the account that `acme` has for this CA: the configured email's,
// or the only one there is. With several and no email it is not for us to choose.
func (s *session) adopt(ctx context.Context) (boundAccount, bool, error) {
	if email := strings.ToLower(strings.TrimSpace(s.iss.Email)); email != "" {
		var bound boundAccount
		var found bool
		err := s.store.Locked(ctx, "register_acme_account_"+email, nil, func() (err error) {
			bound, found, err = s.loadCertMagicAccount(ctx, certmagic.StorageKeys.Safe(email))
			return err
		})
		return bound, found, err
	}
	var bound boundAccount
	var found bool
	err := s.store.Locked(ctx, "register_acme_account", nil, func() error {
		all, err := s.certMagicAccounts(ctx)
		if err != nil || len(all) == 0 {
			return err
		}
		if len(all) > 1 {
			var list []string
			for folder, b := range all {
				list = append(list, fmt.Sprintf("%s (%s)", folder, b.URL))
			}
			return &AccountError{CA: s.iss.CA, Err: fmt.Errorf(
				"storage holds several accounts of this CA and no email is configured: set email or account_url to choose one: %s",
				strings.Join(slices.Sorted(slices.Values(list)), ", "))}
		}
		for _, b := range all {
			bound, found = b, true
		}
		return nil
	})
	return bound, found, err
}

// certMagicAccounts returns the complete accounts of `acme` at this CA, by folder.
func (s *session) certMagicAccounts(ctx context.Context) (map[string]boundAccount, error) {
	folders, err := s.store.Storage.List(ctx, s.store.users, false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing the accounts in storage: %w", err)
	}
	all := make(map[string]boundAccount)
	for _, f := range folders {
		name := path.Base(f)
		bound, found, err := s.loadCertMagicAccount(ctx, name)
		if err != nil {
			return nil, err
		}
		if found {
			all[name] = bound
		}
	}
	return all, nil
}

// loadCertMagicAccount reads one folder of CertMagic's layout. The file names are
// made from the email address; listing the folder spares knowing how.
func (s *session) loadCertMagicAccount(ctx context.Context, folder string) (boundAccount, bool, error) {
	files, err := s.store.Storage.List(ctx, path.Join(s.store.users, folder), false)
	if errors.Is(err, fs.ErrNotExist) {
		return boundAccount{}, false, nil
	}
	if err != nil {
		return boundAccount{}, false, fmt.Errorf("listing the account %s in storage: %w", folder, err)
	}
	var registration, keyPEM []byte
	for _, f := range files {
		var into *[]byte
		switch path.Ext(f) {
		case ".json":
			into = &registration
		case ".key":
			into = &keyPEM
		default:
			continue
		}
		if *into, err = s.store.Storage.Load(ctx, f); err != nil {
			return boundAccount{}, false, fmt.Errorf("reading %s from storage: %w", f, err)
		}
	}
	if registration == nil || keyPEM == nil {
		return boundAccount{}, false, nil
	}
	var account acme.Account
	if err := json.Unmarshal(registration, &account); err != nil || account.Location == "" {
		// an unfinished registration: nothing to adopt
		return boundAccount{}, false, nil //nolint:nilerr // see above
	}
	key, err := certmagic.PEMDecodePrivateKey(keyPEM)
	if err != nil {
		return boundAccount{}, false, nil //nolint:nilerr // a key that nobody can read adopts nothing
	}
	bound, err := newBound(s.iss.CA, originAdopted, key, account.Contact)
	if err != nil {
		return boundAccount{}, false, err
	}
	bound.URL = account.Location
	return bound, true, nil
}

// findByURL looks for the account with the given URL among all bindings and all
// accounts of `acme` at this CA, in this order: after a key rollover those of `acme`
// hold a dead key.
func (s *session) findByURL(ctx context.Context, url string) (boundAccount, bool, error) {
	if own, found, err := s.ownByURL(ctx, url); err != nil || found {
		return own, found, err
	}
	all, err := s.certMagicAccounts(ctx)
	if err != nil {
		return boundAccount{}, false, err
	}
	for _, b := range all {
		if b.URL == url {
			return b, true, nil
		}
	}
	return boundAccount{}, false, nil
}
