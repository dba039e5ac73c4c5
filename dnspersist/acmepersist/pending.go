package acmepersist

import (
	"context"
	"crypto"
	"fmt"
	"slices"
	"time"

	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/ca"
	"github.com/dnspersist/caddy-dnspersist/internal/walltime"
)

const (
	// askNext is how long the CA's word is good that it does not know the key of a pending
	// rollover, while nothing speaks against the account's present key.
	askNext = time.Minute
	// askNextSoon is how long it is good where the CA has refused the present key.
	askNextSoon = 2 * time.Second
	// askNextRetries is how often an ordinary session repeats the question.
	askNextRetries = 1
)

// settlePending finds out for an ordinary session what became of a rollover that was begun.
// What cannot be found out now is no reason to stop: the present key may well be good.
func (s *session) settlePending(ctx context.Context, bound boundAccount) boundAccount {
	settled, err := s.resolveLocked(ctx, bound, askNext)
	if err != nil {
		s.logger.Warn("a key rollover of the ACME account is pending and the CA could not be asked about it; going on with the present key",
			zap.String("ca", bound.CA), zap.String("account", bound.URL), zap.Error(err))
		return bound
	}
	return settled
}

// resolveLocked is resolve under the account's lock, unless the CA has answered within the
// given time. A rollover that is under way in another process is waited for.
func (s *session) resolveLocked(ctx context.Context, bound boundAccount, good time.Duration) (boundAccount, error) {
	if bound.NextKeyPEM == "" {
		return bound, nil
	}
	again := func() (bool, error) {
		fresh, found, err := s.store.loadBound(ctx, bound.at)
		if err == nil && found {
			bound = fresh
		}
		return bound.NextKeyPEM == "" || s.iss.askedLately(bound.NextKeyPEM, good), err
	}
	if s.iss.askedLately(bound.NextKeyPEM, good) {
		return bound, nil
	}
	err := s.store.Locked(ctx, s.accountLock(), again, func() error {
		done, err := again()
		if done || err != nil {
			return err
		}
		bound, err = s.iss.sessionWith(s.Again()).resolve(ctx, bound)
		return err
	})
	return bound, err
}

// resolve asks the CA about the key of a pending rollover: if it is the account's, it is
// promoted; if the CA does not know it, nothing changes. It is called under the lock, by a
// session without account.
func (s *session) resolve(ctx context.Context, bound boundAccount) (boundAccount, error) {
	next, err := decodeKey(bound.NextKeyPEM, "the next key of the account")
	if err != nil {
		return bound, err
	}
	known, err := s.knows(ctx, bound.URL, next, askNextRetries)
	s.iss.mu.Lock()
	s.iss.askedNext, s.iss.askedNextAt = bound.NextKeyPEM, time.Now()
	s.iss.mu.Unlock()
	if err != nil || !known {
		return bound, err
	}
	s.logger.Info("the CA had changed the account's key before the rollover was cut short; using the new key",
		zap.String("ca", bound.CA), zap.String("account", bound.URL))
	return s.promote(ctx, bound, next)
}

func (iss *Issuer) askedLately(next string, good time.Duration) bool {
	iss.mu.Lock()
	defer iss.mu.Unlock()
	return iss.askedNext == next && time.Since(iss.askedNextAt) < good
}

// knows asks the CA whether a key is the account's (RFC 8555 section 7.3.1). A key of
// another account is an error.
func (s *session) knows(ctx context.Context, url string, key crypto.Signer, retries int) (bool, error) {
	var account acme.Account
	err := s.stepUpTo(ctx, "asking the CA whose the new key is", retries, func() (err error) {
		account, err = s.ACME.GetAccount(ctx, acme.Account{PrivateKey: key})
		return err
	})
	switch {
	case ca.IsProblem(err, "accountDoesNotExist"):
		return false, nil
	case err != nil:
		return false, err
	case account.Location != url:
		return false, fmt.Errorf("asking the CA whose the new key is: it names the account %q, the bound account is %s: "+
			"nothing was changed; keep the storage and ask the CA", account.Location, url)
	}
	return true, nil
}

// promoted is the binding after the key of a rollover has become the account's.
func (b boundAccount) promoted(next crypto.Signer) (boundAccount, error) {
	thumbprint, err := thumbprintOf(next)
	if err != nil {
		return b, err
	}
	b.EarlierThumbprints = prepend(b.EarlierThumbprints, b.Thumbprint)
	b.Thumbprint, b.KeyPEM, b.NextKeyPEM = thumbprint, b.NextKeyPEM, ""
	b.RolledAt = walltime.Now().UTC()
	return b, nil
}

// promote stores the binding with the new key; the old one is kept nowhere.
func (s *session) promote(ctx context.Context, bound boundAccount, next crypto.Signer) (boundAccount, error) {
	rolled, err := bound.promoted(next)
	if err != nil {
		return bound, err
	}
	if rolled, err = s.saveBinding(ctx, rolled); err != nil {
		return bound, fmt.Errorf("the CA has changed the key of %s, but that could not be noted; the new key is in storage as next_key, try again: %w", bound.URL, err)
	}
	s.iss.forgetBound()
	return rolled, nil
}

// prepend puts the latest thumbprint in front, once.
func prepend(list []string, first ...string) []string {
	var all []string
	for _, t := range slices.Concat(first, list) {
		if !slices.Contains(all, t) {
			all = append(all, t)
		}
	}
	return all
}
