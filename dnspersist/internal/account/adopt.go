package account

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

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
)

// usersFolder is where CertMagic keeps the accounts of `acme` at this CA.
func (f *files) usersFolder() string {
	return path.Join("acme", certmagic.StorageKeys.Safe(state.IssuerKey(f.CA.URL)), "users")
}

// adopt copies the account that `acme` has for this CA: the configured email's,
// or the only one there is. With several and no email it is not for us to choose.
func (f *files) adopt(ctx context.Context) (binding, bool, error) {
	if email := strings.ToLower(strings.TrimSpace(f.Email)); email != "" {
		var bound binding
		var found bool
		err := f.store.Locked(ctx, "register_acme_account_"+email, nil, func() (err error) {
			bound, found, err = f.loadCertMagicAccount(ctx, certmagic.StorageKeys.Safe(email))
			return err
		})
		return bound, found, err
	}
	var bound binding
	var found bool
	err := f.store.Locked(ctx, "register_acme_account", nil, func() error {
		all, err := f.certMagicAccounts(ctx)
		if err != nil || len(all) == 0 {
			return err
		}
		if len(all) > 1 {
			var list []string
			for folder, b := range all {
				list = append(list, fmt.Sprintf("%s (%s)", folder, b.URL))
			}
			return &Error{CA: f.CA.URL, Err: fmt.Errorf(
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
func (f *files) certMagicAccounts(ctx context.Context) (map[string]binding, error) {
	folders, err := f.store.Storage.List(ctx, f.usersFolder(), false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing the accounts in storage: %w", err)
	}
	all := make(map[string]binding)
	for _, folder := range folders {
		name := path.Base(folder)
		bound, found, err := f.loadCertMagicAccount(ctx, name)
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
func (f *files) loadCertMagicAccount(ctx context.Context, folder string) (binding, bool, error) {
	keys, err := f.store.Storage.List(ctx, path.Join(f.usersFolder(), folder), false)
	if errors.Is(err, fs.ErrNotExist) {
		return binding{}, false, nil
	}
	if err != nil {
		return binding{}, false, fmt.Errorf("listing the account %s in storage: %w", folder, err)
	}
	var registration, keyPEM []byte
	for _, at := range keys {
		var into *[]byte
		switch path.Ext(at) {
		case ".json":
			into = &registration
		case ".key":
			into = &keyPEM
		default:
			continue
		}
		if *into, err = f.store.Storage.Load(ctx, at); err != nil {
			return binding{}, false, fmt.Errorf("reading %s from storage: %w", at, err)
		}
	}
	if registration == nil || keyPEM == nil {
		return binding{}, false, nil
	}
	var account acme.Account
	if err := json.Unmarshal(registration, &account); err != nil || account.Location == "" {
		// an unfinished registration: nothing to adopt
		return binding{}, false, nil //nolint:nilerr // see above
	}
	key, err := certmagic.PEMDecodePrivateKey(keyPEM)
	if err != nil {
		return binding{}, false, nil //nolint:nilerr // a key that nobody can read adopts nothing
	}
	bound, err := newBinding(f.CA.URL, originAdopted, key, account.Contact)
	if err != nil {
		return binding{}, false, err
	}
	bound.URL = account.Location
	return bound, true, nil
}

// byURL looks for the account with the given URL among all bindings and all
// accounts of `acme` at this CA, in this order: after a key rollover those of `acme`
// hold a dead key.
func (f *files) byURL(ctx context.Context, url string) (binding, bool, error) {
	if own, found, err := f.ownByURL(ctx, url); err != nil || found {
		return own, found, err
	}
	all, err := f.certMagicAccounts(ctx)
	if err != nil {
		return binding{}, false, err
	}
	for _, b := range all {
		if b.URL == url {
			return b, true, nil
		}
	}
	return binding{}, false, nil
}
