package account

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

// Rollover is what Roll has done.
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

// Roll changes the key of the bound account (RFC 8555 section 7.3.5). The account URL
// stays. Records of the deployed drafts (up to -01) name that alone and stay as they are;
// those of draft -02 are hashes over the key's thumbprint (section 4.1) and are to be
// replaced afterwards, old values being valid at the CA as section 4.2 wants it.
//
// The new key is in storage before the CA is asked, and the old one until the CA has confirmed
// that the new one is the account's: a rollover that is cut short anywhere goes on with the
// next call, and attempts use whichever key the CA knows. Afterwards the old key is
// in none of our files. If the account was adopted from `acme`, CertMagic's copy of it
// (acme/<ca>/users) then holds a dead key, which is never used by this package again; a site
// that still uses `acme` will register an account of its own.
func (h *Holder) Roll(ctx context.Context) (Rollover, error) {
	if h.PinnedKeyPEM != "" {
		return Rollover{}, errors.New("rolling the account key: account_key pins the key in the configuration, which would then hold a dead one: " +
			"replace account_key by account_url with the account's URL (the key is in storage already), reload, and roll the key then")
	}
	b, err := h.open(ctx)
	if err != nil {
		return Rollover{}, fmt.Errorf("rolling the account key: %w", err)
	}
	if b.client.Directory.KeyChange == "" {
		return Rollover{}, fmt.Errorf("rolling the account key: the CA %s offers no keyChange in its directory", h.CA.URL)
	}
	var done Rollover
	err = h.locked(ctx, nil, func() error {
		bound, err := h.mustKnow(ctx)
		if err != nil {
			return err
		}
		if !bound.endedAt().IsZero() {
			return bound.ended(nil)
		}
		done, err = b.roll(ctx, bound)
		return err
	})
	if err != nil {
		return Rollover{}, fmt.Errorf("rolling the account key: %w", err)
	}
	h.memory.forget()
	h.logger.Info("the key of the ACME account was changed; take a new backup, the key in older ones is dead",
		zap.String("ca", h.CA.URL), zap.String("account", done.URL),
		zap.String("old_thumbprint", done.OldThumbprint), zap.String("thumbprint", done.NewThumbprint))
	return done, nil
}

// roll is Roll under the lock.
func (b *Book) roll(ctx context.Context, bound binding) (Rollover, error) {
	resumed := bound.NextKeyPEM != ""
	var next crypto.Signer
	var err error
	if resumed {
		if next, err = decodeKey(bound.NextKeyPEM, "the next key of the account"); err != nil {
			return Rollover{}, err
		}
		known, err := knows(ctx, b.client, bound.URL, next, ca.MaxRetries)
		if err != nil {
			return Rollover{}, fmt.Errorf("a rollover of %s is pending: %w", bound.URL, err)
		}
		if known {
			return b.rolled(ctx, bound, next, true)
		}
	} else if bound, next, err = b.prepareNext(ctx, bound); err != nil {
		return Rollover{}, err
	}
	account, err := b.signsWith(bound)
	if err != nil {
		return Rollover{}, err
	}
	sent := 0
	changeErr := b.client.Do(ctx, "changing the account's key", func() error {
		sent++
		_, err := b.client.ACME.AccountKeyRollover(ctx, account, next)
		return err
	})
	// the CA may have acted whatever came back of it, or not at all
	known, err := knows(ctx, b.client, bound.URL, next, ca.MaxRetries)
	switch {
	case err != nil:
		return Rollover{}, fmt.Errorf("whether the CA has changed the key of %s is not known, both keys are in storage: try again: %w",
			bound.URL, errors.Join(changeErr, err))
	case known:
		return b.rolled(ctx, bound, next, resumed)
	case changeErr == nil:
		return Rollover{}, fmt.Errorf("the CA has accepted the new key of %s, but does not know it: the old one stays in use, try again later", bound.URL)
	}
	var problem acme.Problem
	if !resumed && sent == 1 && errors.As(changeErr, &problem) && !ca.IsRateLimited(changeErr) {
		// it was sent once and refused: nothing can come of it any more
		bound.NextKeyPEM = ""
		if _, err := b.save(ctx, bound); err != nil {
			return Rollover{}, errors.Join(changeErr, err)
		}
	}
	return Rollover{}, fmt.Errorf("the key of %s was not changed, the old one stays in use: %w", bound.URL, changeErr)
}

// prepareNext generates the new key and stores it beside the present one.
func (f *files) prepareNext(ctx context.Context, bound binding) (binding, crypto.Signer, error) {
	next, err := newKey()
	if err != nil {
		return bound, nil, err
	}
	text, err := certmagic.PEMEncodePrivateKey(next)
	if err != nil {
		return bound, nil, fmt.Errorf("encoding the new account key: %w", err)
	}
	bound.NextKeyPEM = string(text)
	if bound, err = f.save(ctx, bound); err != nil {
		return bound, nil, err
	}
	// a storage that drops what it is given must be noticed before the CA acts
	stored, found, err := f.load(ctx, bound.at)
	if err != nil {
		return bound, nil, err
	}
	if !found || stored.NextKeyPEM != bound.NextKeyPEM {
		return bound, nil, fmt.Errorf("the new key was written to %s in storage, but it is not there: the CA was not asked", bound.at)
	}
	return bound, next, nil
}

// rolled stores the binding with the new key.
func (b *Book) rolled(ctx context.Context, bound binding, next crypto.Signer, resumed bool) (Rollover, error) {
	old := bound.Thumbprint
	bound, err := b.promote(ctx, bound, next)
	if err != nil {
		return Rollover{}, err
	}
	return Rollover{URL: bound.URL, OldThumbprint: old, NewThumbprint: bound.Thumbprint, RolledAt: bound.RolledAt, Resumed: resumed}, nil
}

const (
	// askNext is how long the CA's answer is good that it does not know the key of a pending
	// rollover, while nothing speaks against the account's present key.
	askNext = time.Minute
	// askNextSoon is how long it is good where the CA has refused the present key.
	askNextSoon = 2 * time.Second
	// askNextRetries is how often an attempt repeats the question.
	askNextRetries = 1
)

// settlePending finds out for an attempt what became of a rollover that was begun.
// What cannot be found out now is not a reason to stop: the present key may be good.
func (b *Book) settlePending(ctx context.Context, bound binding) binding {
	settled, err := b.resolveLocked(ctx, bound, askNext)
	if err != nil {
		b.logger.Warn("a key rollover of the ACME account is pending and the CA could not be asked about it; going on with the present key",
			zap.String("ca", bound.CA), zap.String("account", bound.URL), zap.Error(err))
		return bound
	}
	return settled
}

// resolveLocked is resolve under the account's lock, unless the CA has answered within the
// given time. A rollover that is under way in another process is waited for.
func (b *Book) resolveLocked(ctx context.Context, bound binding, good time.Duration) (binding, error) {
	if bound.NextKeyPEM == "" {
		return bound, nil
	}
	again := func() (bool, error) {
		fresh, found, err := b.load(ctx, bound.at)
		if err == nil && found {
			bound = fresh
		}
		return bound.NextKeyPEM == "" || b.memory.hasAsked(bound.NextKeyPEM, good), err
	}
	if b.memory.hasAsked(bound.NextKeyPEM, good) {
		return bound, nil
	}
	err := b.locked(ctx, again, func() error {
		done, err := again()
		if err == nil && !done {
			bound, err = b.Book(b.client.Again()).resolve(ctx, bound)
		}
		return err
	})
	return bound, err
}

// resolve asks the CA about the key of a pending rollover: if it is the account's, it is
// promoted; if the CA does not know it, or none is pending, nothing changes. It is called under the lock.
func (b *Book) resolve(ctx context.Context, bound binding) (binding, error) {
	if bound.NextKeyPEM == "" {
		return bound, nil
	}
	next, err := decodeKey(bound.NextKeyPEM, "the next key of the account")
	if err != nil {
		return bound, err
	}
	known, err := knows(ctx, b.client, bound.URL, next, askNextRetries)
	b.memory.mu.Lock()
	b.memory.asked, b.memory.askedAt = bound.NextKeyPEM, time.Now()
	b.memory.mu.Unlock()
	if err != nil || !known {
		return bound, err
	}
	b.logger.Info("the CA had changed the account's key before the rollover was cut short; using the new key",
		zap.String("ca", bound.CA), zap.String("account", bound.URL))
	return b.promote(ctx, bound, next)
}

// promote stores the binding with the new key; the old one is kept nowhere.
func (b *Book) promote(ctx context.Context, bound binding, next crypto.Signer) (binding, error) {
	rolled, err := bound.promoted(next)
	if err != nil {
		return bound, err
	}
	if rolled, err = b.save(ctx, rolled); err != nil {
		return bound, fmt.Errorf("the CA has changed the key of %s, but that could not be noted; the new key is in storage as next_key, try again: %w", bound.URL, err)
	}
	b.memory.forget()
	return rolled, nil
}
