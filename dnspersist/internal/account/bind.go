package account

import (
	"cmp"
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

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/ca"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
)

// Bind loads the bound account, or binds one: the pinned key's, else the one that
// `acme` has for this CA, else a new one, once for a cluster. Another process may roll the
// key over or import one, so storage is looked at again from time to time.
func (b *Book) Bind(ctx context.Context) error {
	bound, due := b.memory.recall(b.Reload)
	if bound != nil && !due {
		return b.use(*bound)
	}
	var fresh binding
	var err error
	if bound == nil {
		fresh, err = b.loadOrBind(ctx)
	} else {
		fresh, err = b.reload(ctx, *bound)
	}
	if err != nil {
		return err
	}
	fresh = b.settlePending(ctx, fresh)
	b.memory.remember(fresh)
	return b.use(fresh)
}

// Load is Bind where none is to be bound: found is false if none is.
func (b *Book) Load(ctx context.Context) (found bool, err error) {
	bound, found, err := b.known(ctx)
	if err != nil || !found {
		return false, err
	}
	return true, b.use(b.settlePending(ctx, bound))
}

// use makes the conversation one of the account.
func (b *Book) use(bound binding) error {
	if !bound.DeactivatedAt.IsZero() {
		return bound.ended(nil)
	}
	account, err := b.signsWith(bound)
	if err != nil {
		return &Error{CA: b.CA.URL, URL: bound.URL, Err: err}
	}
	// from the key itself: a record with the thumbprint of another one is of no use
	thumbprint, err := account.Thumbprint()
	if err != nil {
		return &Error{CA: b.CA.URL, URL: bound.URL, Err: fmt.Errorf("computing the key's thumbprint: %w", err)}
	}
	b.account = account
	b.Identity = ca.Identity{
		URL: bound.URL, URI: cmp.Or(b.PinnedURI, bound.URL), Thumbprint: thumbprint, EarlierThumbprints: bound.EarlierThumbprints,
	}
	return nil
}

// signsWith is the account for requests of this conversation. A signature that the CA refuses is sent
// again if the key was changed just now.
func (b *Book) signsWith(bound binding) (acme.Account, error) {
	b.client.RolledAt = bound.RolledAt
	return bound.acme()
}

// loadOrBind returns the binding in storage, or one that is made.
func (b *Book) loadOrBind(ctx context.Context) (binding, error) {
	key, err := b.key()
	if err != nil {
		return binding{}, err
	}
	var bound binding
	already := func() (found bool, err error) {
		bound, found, err = b.finished(ctx, key)
		return found, err
	}
	if found, err := already(); err != nil || found {
		return bound, err
	}
	err = b.locked(ctx, already, func() error {
		// another node may have bound it while we waited
		found, err := already()
		if err == nil && !found {
			bound, err = b.bindNew(ctx, key)
		}
		return err
	})
	return bound, err
}

// bindNew decides which account is bound, under the lock.
func (b *Book) bindNew(ctx context.Context, storageKey string) (binding, error) {
	if b.PinnedKeyPEM != "" {
		return b.bindPinnedKey(ctx, storageKey)
	}
	if want := b.PinnedURL; want != "" {
		bound, ok, err := b.byURL(ctx, want)
		if err != nil {
			return binding{}, err
		}
		if !ok {
			return binding{}, &Error{CA: b.CA.URL, URL: want, Err: errors.New(
				"account_url names it, but its key is not in storage, and no account is registered in its place: " +
					"is this the right storage? restore its dns_persist folder from a backup, or set account_key")}
		}
		return b.keep(ctx, storageKey, bound)
	}
	// a registration that was cut short goes on, or its account would be lost
	started, err := b.store.Load(ctx, storageKey, new(binding))
	if err != nil {
		return binding{}, err
	}
	if started {
		return b.register(ctx, storageKey)
	}
	if err := b.warnOfOthers(ctx); err != nil {
		return binding{}, err
	}
	bound, ok, err := b.adopt(ctx)
	if err != nil {
		return binding{}, err
	}
	if !ok {
		return b.register(ctx, storageKey)
	}
	// acme's copy of an account whose key was rolled over holds a dead one
	if own, ok, err := b.ownByURL(ctx, bound.URL); err != nil {
		return binding{}, err
	} else if ok {
		bound = own
	}
	return b.keep(ctx, storageKey, bound)
}

// bindPinnedKey looks the configured key's account up at the CA. It is registered
// only if nothing shows that it must exist already.
func (b *Book) bindPinnedKey(ctx context.Context, storageKey string) (binding, error) {
	key, err := binding{KeyPEM: b.PinnedKeyPEM}.signer()
	if err != nil {
		return binding{}, &Error{CA: b.CA.URL, URL: b.PinnedURL, Err: fmt.Errorf("account_key: %w", err)}
	}
	bound, err := newBinding(b.CA.URL, originKey, key, nil)
	if err != nil {
		return binding{}, err
	}
	account, err := accountOf(ctx, b.client, "looking up the account of account_key", key, ca.MaxRetries)
	switch {
	case err == nil:
		bound.URL, bound.Contact = account.Location, account.Contact
	case ca.IsProblem(err, "accountDoesNotExist") && b.PinnedURL == "":
		if bound, err = b.registerKey(ctx, storageKey, bound); err != nil {
			return binding{}, err
		}
	case ca.IsProblem(err, "accountDoesNotExist"):
		return binding{}, &Error{CA: b.CA.URL, URL: b.PinnedURL, Err: fmt.Errorf("the CA knows no account with the configured account_key: %w", err)}
	default:
		return binding{}, err
	}
	if want := b.PinnedURL; want != "" && bound.URL != want {
		return binding{}, &Error{CA: b.CA.URL, URL: want, Err: fmt.Errorf(
			"account_key is the key of %s: correct account_url or account_key", bound.URL)}
	}
	return b.keep(ctx, storageKey, bound)
}

// register makes a new account. The key is stored before it is sent, and one that
// was stored before a crash is used again: the CA then returns the same account.
func (b *Book) register(ctx context.Context, storageKey string) (binding, error) {
	var bound binding
	started, err := b.store.Load(ctx, storageKey, &bound)
	if err != nil {
		return binding{}, err
	}
	if !started {
		key, err := newKey()
		if err != nil {
			return binding{}, err
		}
		if bound, err = newBinding(b.CA.URL, originRegistered, key, b.contact()); err != nil {
			return binding{}, err
		}
	}
	if bound, err = b.registerKey(ctx, storageKey, bound); err != nil {
		return binding{}, err
	}
	b.memory.mu.Lock()
	b.memory.registered = bound.URL
	b.memory.mu.Unlock()
	return b.keep(ctx, storageKey, bound)
}

// registerKey asks the CA for the account of a key, once that is stored.
func (b *Book) registerKey(ctx context.Context, storageKey string, bound binding) (binding, error) {
	key, err := bound.signer()
	if err != nil {
		return binding{}, err
	}
	if err := b.store.Save(ctx, storageKey, bound); err != nil {
		return binding{}, err
	}
	account := acme.Account{Contact: b.contact(), TermsOfServiceAgreed: true, PrivateKey: key}
	if b.External != nil {
		if err := account.SetExternalAccountBinding(ctx, b.client.ACME, *b.External); err != nil {
			// the cause could quote the MAC key
			return binding{}, &Error{CA: b.CA.URL, Err: errors.New("eab: the MAC key is not base64url-encoded")}
		}
	} else if b.client.Directory.Meta.ExternalAccountRequired {
		return binding{}, &Error{CA: b.CA.URL, Err: errors.New(
			"the CA wants an external account binding: get a key ID and MAC key from it and set eab (external_account in JSON)")}
	}
	err = b.client.Do(ctx, "registering an ACME account", func() (err error) {
		account, err = b.client.ACME.NewAccount(ctx, account)
		return err
	})
	var problem acme.Problem
	if errors.As(err, &problem) && !ca.IsProblem(err, "rateLimited", "serverInternal") {
		if b.External != nil {
			err = fmt.Errorf("%w; check the key ID and the MAC key of eab (external_account in JSON), which the CA may want to be new ones", err)
		}
		return binding{}, &Error{CA: b.CA.URL, Err: err}
	}
	if err != nil {
		return binding{}, err
	}
	if account.Location == "" {
		return binding{}, &Error{CA: b.CA.URL, Err: errors.New("the CA answered new-account without the account's URL")}
	}
	bound.URL, bound.Contact = account.Location, account.Contact
	return bound, nil
}

// usersFolder is where CertMagic keeps the accounts of `acme` at this CA.
func (f *files) usersFolder() string {
	return path.Join("acme", certmagic.StorageKeys.Safe(state.IssuerKey(f.CA.URL)), "users")
}

// adopt copies the account that `acme` has for this CA: the configured email's,
// or the only one there is. With several and no email it is not for us to choose.
func (f *files) adopt(ctx context.Context) (bound binding, found bool, err error) {
	if email := strings.ToLower(strings.TrimSpace(f.Email)); email != "" {
		err = f.store.Locked(ctx, "register_acme_account_"+email, nil, func() (err error) {
			bound, found, err = f.loadCertMagicAccount(ctx, certmagic.StorageKeys.Safe(email))
			return err
		})
		return bound, found, err
	}
	err = f.store.Locked(ctx, "register_acme_account", nil, func() error {
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
