package acmepersist

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/ca"
)

// bindingKey is where the binding lies in storage: one file for each CA, and one
// more for each account that is pinned by its key.
func (s *session) bindingKey() (string, error) {
	if s.iss.AccountKeyPEM == "" {
		return s.store.Key("account.json"), nil
	}
	key, err := boundAccount{KeyPEM: s.iss.AccountKeyPEM}.signer()
	if err != nil {
		return "", &AccountError{CA: s.iss.CA, URL: s.iss.AccountURL, Err: fmt.Errorf("account_key: %w", err)}
	}
	pinned, err := newBound(s.iss.CA, originKey, key, nil)
	if err != nil {
		return "", err
	}
	return s.store.Key("account_" + pinned.Thumbprint + ".json"), nil
}

func (s *session) loadOrBind(ctx context.Context) (boundAccount, error) {
	key, err := s.bindingKey()
	if err != nil {
		return boundAccount{}, err
	}
	if bound, found, err := s.loadBinding(ctx, key); err != nil || found {
		return bound, err
	}
	var bound boundAccount
	already := func() (found bool, err error) {
		bound, found, err = s.loadBinding(ctx, key)
		return found, err
	}
	err = s.store.Locked(ctx, s.accountLock(), already, func() error {
		// another node may have bound it while we waited
		if found, err := already(); err != nil || found {
			return err
		}
		var err error
		bound, err = s.bindNew(ctx, key)
		return err
	})
	return bound, err
}

// loadBinding returns the finished binding at key. One without a URL is a
// registration that was cut short.
func (s *session) loadBinding(ctx context.Context, key string) (boundAccount, bool, error) {
	bound, found, err := s.store.loadBound(ctx, key)
	if err != nil || !found || bound.URL == "" {
		return boundAccount{}, false, err
	}
	if want := s.iss.AccountURL; want != "" && bound.URL != want {
		other, ok, err := s.findByURL(ctx, want)
		if err != nil || ok {
			return other, ok, err
		}
		return boundAccount{}, false, &AccountError{CA: s.iss.CA, URL: want, Err: fmt.Errorf(
			"account_url names it, but the account in storage is %s and no key for the configured one is there: "+
				"restore its key, or set account_key, or correct account_url", bound.URL)}
	}
	return bound, true, nil
}

// bindNew decides which account is bound, under the lock.
func (s *session) bindNew(ctx context.Context, storageKey string) (boundAccount, error) {
	if s.iss.AccountKeyPEM != "" {
		return s.bindPinnedKey(ctx, storageKey)
	}
	if want := s.iss.AccountURL; want != "" {
		bound, ok, err := s.findByURL(ctx, want)
		if err != nil {
			return boundAccount{}, err
		}
		if !ok {
			return boundAccount{}, &AccountError{CA: s.iss.CA, URL: want, Err: errors.New(
				"account_url names it, but its key is not in storage, and no account is registered in its place: " +
					"is this the right storage? restore its dns_persist folder from a backup, or set account_key")}
		}
		return s.finish(ctx, storageKey, bound)
	}
	// a registration that was cut short goes on, or its account would be lost
	started, err := s.store.Load(ctx, storageKey, new(boundAccount))
	if err != nil {
		return boundAccount{}, err
	}
	if started {
		return s.register(ctx, storageKey)
	}
	if err := s.warnOfOthers(ctx); err != nil {
		return boundAccount{}, err
	}
	bound, ok, err := s.adopt(ctx)
	if err != nil {
		return boundAccount{}, err
	}
	if !ok {
		return s.register(ctx, storageKey)
	}
	// acme's copy of an account whose key was rolled over holds a dead one
	if own, ok, err := s.ownByURL(ctx, bound.URL); err != nil {
		return boundAccount{}, err
	} else if ok {
		bound = own
	}
	return s.finish(ctx, storageKey, bound)
}

// warnOfOthers says that accounts are bound here which account_key has pinned before: where it
// was taken out of the configuration, records name them and not the new one.
func (s *session) warnOfOthers(ctx context.Context) error {
	all, err := s.ownFiles(ctx)
	if err != nil {
		return err
	}
	for _, b := range all {
		if b.URL == "" || !b.DeactivatedAt.IsZero() {
			continue
		}
		s.logger.Warn("another account is bound beside one that account_key has pinned; "+
			"if records name that one and account_key was removed, set account_url to it: its key is in storage",
			zap.String("ca", s.iss.CA), zap.String("pinned_account", b.URL), zap.String("storage_key", b.at))
	}
	return nil
}

// bindPinnedKey looks the configured key's account up at the CA. It is registered
// only if nothing says that it must exist already.
func (s *session) bindPinnedKey(ctx context.Context, storageKey string) (boundAccount, error) {
	key, err := boundAccount{KeyPEM: s.iss.AccountKeyPEM}.signer()
	if err != nil {
		return boundAccount{}, &AccountError{CA: s.iss.CA, URL: s.iss.AccountURL, Err: fmt.Errorf("account_key: %w", err)}
	}
	bound, err := newBound(s.iss.CA, originKey, key, nil)
	if err != nil {
		return boundAccount{}, err
	}
	var account acme.Account
	err = s.step(ctx, "looking up the account of account_key", func() (err error) {
		account, err = s.ACME.GetAccount(ctx, acme.Account{PrivateKey: key})
		return err
	})
	switch {
	case err == nil:
		bound.URL, bound.Contact = account.Location, account.Contact
	case ca.IsProblem(err, "accountDoesNotExist") && s.iss.AccountURL == "":
		if bound, err = s.registerKey(ctx, storageKey, bound); err != nil {
			return boundAccount{}, err
		}
	case ca.IsProblem(err, "accountDoesNotExist"):
		return boundAccount{}, &AccountError{CA: s.iss.CA, URL: s.iss.AccountURL, Err: fmt.Errorf("the CA knows no account with the configured account_key: %w", err)}
	default:
		return boundAccount{}, err
	}
	if want := s.iss.AccountURL; want != "" && bound.URL != want {
		return boundAccount{}, &AccountError{CA: s.iss.CA, URL: want, Err: fmt.Errorf(
			"account_key is the key of %s: correct account_url or account_key", bound.URL)}
	}
	return s.finish(ctx, storageKey, bound)
}

// finish writes a complete binding.
func (s *session) finish(ctx context.Context, storageKey string, bound boundAccount) (boundAccount, error) {
	if bound.BoundAt.IsZero() {
		bound.BoundAt = time.Now().UTC()
	}
	bound.at = storageKey
	if err := s.store.Save(ctx, storageKey, bound); err != nil {
		return boundAccount{}, err
	}
	s.logger.Info("bound the ACME account; back this file up, every record names the account",
		zap.String("ca", bound.CA),
		zap.String("account", bound.URL),
		zap.String("origin", bound.Origin),
		zap.String("storage_key", storageKey))
	return bound, nil
}

// register makes a new account. The key is stored before it is sent, and one that
// was stored before a crash is used again: the CA then returns the same account.
func (s *session) register(ctx context.Context, storageKey string) (boundAccount, error) {
	var bound boundAccount
	started, err := s.store.Load(ctx, storageKey, &bound)
	if err != nil {
		return boundAccount{}, err
	}
	if !started {
		key, err := generateAccountKey()
		if err != nil {
			return boundAccount{}, err
		}
		if bound, err = newBound(s.iss.CA, originRegistered, key, s.contact()); err != nil {
			return boundAccount{}, err
		}
	}
	if bound, err = s.registerKey(ctx, storageKey, bound); err != nil {
		return boundAccount{}, err
	}
	s.iss.mu.Lock()
	s.iss.registeredNow = bound.URL
	s.iss.mu.Unlock()
	return s.finish(ctx, storageKey, bound)
}

func (s *session) registerKey(ctx context.Context, storageKey string, bound boundAccount) (boundAccount, error) {
	key, err := bound.signer()
	if err != nil {
		return boundAccount{}, err
	}
	if err := s.store.Save(ctx, storageKey, bound); err != nil {
		return boundAccount{}, err
	}
	account := acme.Account{Contact: s.contact(), TermsOfServiceAgreed: true, PrivateKey: key}
	if s.iss.ExternalAccount != nil {
		if err := account.SetExternalAccountBinding(ctx, s.ACME, *s.iss.ExternalAccount); err != nil {
			// the cause could quote the MAC key
			return boundAccount{}, &AccountError{CA: s.iss.CA, Err: errors.New("eab: the MAC key is not base64url-encoded")}
		}
	} else if s.Directory.Meta.ExternalAccountRequired {
		return boundAccount{}, &AccountError{CA: s.iss.CA, Err: errors.New(
			"the CA wants an external account binding: get a key ID and MAC key from it and set eab (external_account in JSON)")}
	}
	err = s.step(ctx, "registering an ACME account", func() (err error) {
		account, err = s.ACME.NewAccount(ctx, account)
		return err
	})
	var problem acme.Problem
	if errors.As(err, &problem) && !ca.IsProblem(err, "rateLimited", "serverInternal") {
		if s.iss.ExternalAccount != nil {
			err = fmt.Errorf("%w; check the key ID and the MAC key of eab (external_account in JSON), which the CA may want to be new ones", err)
		}
		return boundAccount{}, &AccountError{CA: s.iss.CA, Err: err}
	}
	if err != nil {
		return boundAccount{}, err
	}
	if account.Location == "" {
		return boundAccount{}, &AccountError{CA: s.iss.CA, Err: errors.New("the CA answered new-account without the account's URL")}
	}
	bound.URL, bound.Contact = account.Location, account.Contact
	return bound, nil
}

func (s *session) contact() []string {
	if email := strings.ToLower(strings.TrimSpace(s.iss.Email)); email != "" {
		return []string{"mailto:" + email}
	}
	return nil
}
