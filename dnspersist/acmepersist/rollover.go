package acmepersist

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/ca"
)

// Rollover is what RollKey has done.
type Rollover struct {
	// URL is the account's.
	URL string `json:"url"`
	// OldThumbprint and NewThumbprint are those of the keys (RFC 7638).
	OldThumbprint string    `json:"old_thumbprint"`
	NewThumbprint string    `json:"new_thumbprint"`
	RolledAt      time.Time `json:"rolled_at"`
	// Resumed is true if a rollover that was cut short was brought to its end.
	Resumed bool `json:"resumed"`
}

// RollKey changes the key of the bound account (RFC 8555 section 7.3.5). The account URL
// stays. Records of the deployed drafts (up to -01) name that alone and stay as they are;
// those of draft -02 are hashes over the key's thumbprint (section 4.1) and are to be
// replaced afterwards, old values being valid at the CA as section 4.2 wants it.
//
// The new key is in storage before the CA is asked, and the old one until the CA has said
// that the new one is the account's: a rollover that is cut short anywhere goes on with the
// next call, and ordinary sessions use whichever key the CA knows. Afterwards the old key is
// in none of our files. If the account was adopted from `acme`, CertMagic's copy of it
// (acme/<ca>/users) then holds a dead key, which is never used by this package again; a site
// that still uses `acme` will register an account of its own.
func (iss *Issuer) RollKey(ctx context.Context) (Rollover, error) {
	if iss.AccountKeyPEM != "" {
		return Rollover{}, errors.New("rolling the account key: account_key pins the key in the configuration, which would then hold a dead one: " +
			"replace account_key by account_url with the account's URL (the key is in storage already), reload, and roll the key then")
	}
	s, err := iss.open(ctx)
	if err != nil {
		return Rollover{}, fmt.Errorf("rolling the account key: %w", err)
	}
	if s.Directory.KeyChange == "" {
		return Rollover{}, fmt.Errorf("rolling the account key: the CA %s offers no keyChange in its directory", iss.CA)
	}
	var done Rollover
	err = s.store.Locked(ctx, s.accountLock(), nil, func() error {
		bound, err := s.mustKnow(ctx)
		if err != nil {
			return err
		}
		if !bound.endedAt().IsZero() {
			return bound.ended(nil)
		}
		done, err = s.roll(ctx, bound)
		return err
	})
	if err != nil {
		return Rollover{}, fmt.Errorf("rolling the account key: %w", err)
	}
	iss.forgetBound()
	s.logger.Info("the key of the ACME account was changed; take a new backup, the key in older ones is dead",
		zap.String("ca", iss.CA), zap.String("account", done.URL),
		zap.String("old_thumbprint", done.OldThumbprint), zap.String("thumbprint", done.NewThumbprint))
	return done, nil
}

// roll is RollKey under the lock.
func (s *session) roll(ctx context.Context, bound boundAccount) (Rollover, error) {
	resumed := bound.NextKeyPEM != ""
	var next crypto.Signer
	var err error
	if resumed {
		if next, err = decodeKey(bound.NextKeyPEM, "the next key of the account"); err != nil {
			return Rollover{}, err
		}
		known, err := s.knows(ctx, bound.URL, next, ca.MaxRetries)
		if err != nil {
			return Rollover{}, fmt.Errorf("a rollover of %s is pending: %w", bound.URL, err)
		}
		if known {
			return s.rolled(ctx, bound, next, true)
		}
	} else if bound, next, err = s.prepareNext(ctx, bound); err != nil {
		return Rollover{}, err
	}
	account, err := s.accountOf(bound)
	if err != nil {
		return Rollover{}, err
	}
	sent := 0
	changeErr := s.step(ctx, "changing the account's key", func() error {
		sent++
		_, err := s.ACME.AccountKeyRollover(ctx, account, next)
		return err
	})
	// the CA may have acted whatever came back of it, or not at all
	known, err := s.knows(ctx, bound.URL, next, ca.MaxRetries)
	switch {
	case err != nil:
		return Rollover{}, fmt.Errorf("whether the CA has changed the key of %s is not known, both keys are in storage: try again: %w",
			bound.URL, errors.Join(changeErr, err))
	case known:
		return s.rolled(ctx, bound, next, resumed)
	case changeErr == nil:
		return Rollover{}, fmt.Errorf("the CA has accepted the new key of %s, but does not know it: the old one stays in use, try again later", bound.URL)
	}
	var problem acme.Problem
	if !resumed && sent == 1 && errors.As(changeErr, &problem) && !ca.IsRateLimited(changeErr) {
		// it was sent once and refused: nothing can come of it any more
		bound.NextKeyPEM = ""
		if _, err := s.saveBinding(ctx, bound); err != nil {
			return Rollover{}, errors.Join(changeErr, err)
		}
	}
	return Rollover{}, fmt.Errorf("the key of %s was not changed, the old one stays in use: %w", bound.URL, changeErr)
}

// prepareNext generates the new key and stores it beside the present one.
func (s *session) prepareNext(ctx context.Context, bound boundAccount) (boundAccount, crypto.Signer, error) {
	next, err := generateAccountKey()
	if err != nil {
		return bound, nil, err
	}
	text, err := certmagic.PEMEncodePrivateKey(next)
	if err != nil {
		return bound, nil, fmt.Errorf("encoding the new account key: %w", err)
	}
	bound.NextKeyPEM = string(text)
	if bound, err = s.saveBinding(ctx, bound); err != nil {
		return bound, nil, err
	}
	// a storage that drops what it is given must be noticed before the CA acts
	stored, found, err := s.store.loadBound(ctx, bound.at)
	if err != nil {
		return bound, nil, err
	}
	if !found || stored.NextKeyPEM != bound.NextKeyPEM {
		return bound, nil, fmt.Errorf("the new key was written to %s in storage, but it is not there: the CA was not asked", bound.at)
	}
	return bound, next, nil
}

// rolled stores the binding with the new key.
func (s *session) rolled(ctx context.Context, bound boundAccount, next crypto.Signer, resumed bool) (Rollover, error) {
	old := bound.Thumbprint
	bound, err := s.promote(ctx, bound, next)
	if err != nil {
		return Rollover{}, err
	}
	return Rollover{URL: bound.URL, OldThumbprint: old, NewThumbprint: bound.Thumbprint, RolledAt: bound.RolledAt, Resumed: resumed}, nil
}
