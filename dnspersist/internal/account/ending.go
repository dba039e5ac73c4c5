package account

import (
	"context"
	"fmt"
	"time"

	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/ca"
)

// Deactivate ends the bound account at the CA (RFC 8555 section 7.3.6), for ever:
// every record that names it is worthless afterwards. The url must be the bound account's,
// so that nobody ends the wrong one. Nothing is ever registered in its place.
//
// That it is asked for is noted before the CA acts: a call that is cut short can be
// repeated, and no account is registered in between, also where a lost one is to be replaced.
func (h *Holder) Deactivate(ctx context.Context, url string) error {
	b, err := h.open(ctx)
	if err != nil {
		return fmt.Errorf("deactivating the account %s: %w", url, err)
	}
	err = h.locked(ctx, nil, func() error {
		bound, err := h.mustKnow(ctx)
		if err != nil {
			return err
		}
		if bound.URL != url {
			return fmt.Errorf("the bound account at %s is %s, nothing was done: give exactly its URL", h.CA.URL, bound.URL)
		}
		if !bound.DeactivatedAt.IsZero() {
			return nil
		}
		return b.deactivate(ctx, bound)
	})
	h.memory.forget()
	if err != nil {
		return fmt.Errorf("deactivating the account %s: %w", url, err)
	}
	return nil
}

func (b *Book) deactivate(ctx context.Context, bound binding) error {
	var err error
	if bound.NextKeyPEM != "" {
		if bound, err = b.resolve(ctx, bound); err != nil {
			return fmt.Errorf("a key rollover is pending: %w", err)
		}
	}
	account, err := b.signsWith(bound)
	if err != nil {
		return err
	}
	again := !bound.DeactivatingAt.IsZero()
	bound.DeactivatingAt = time.Now().UTC()
	if bound, err = b.save(ctx, bound); err != nil {
		return err
	}
	var answer acme.Account
	sent := 0
	err = b.client.Do(ctx, "asking the CA to deactivate the account", func() (err error) {
		sent++
		answer, err = b.client.ACME.UpdateAccount(ctx, acme.Account{
			Status: acme.StatusDeactivated, Location: account.Location, PrivateKey: account.PrivateKey,
		})
		return err
	})
	switch {
	case err == nil && answer.Status == acme.StatusDeactivated:
	case err == nil:
		return fmt.Errorf("the CA answered, but the account's status is %q: try again", answer.Status)
	case ca.IsProblem(err, "unauthorized") && (again || sent > 1) && isEnded(ctx, b.client, account):
		// an earlier request, whose answer was lost, had done it
	case ca.IsProblem(err, "unauthorized", "malformed", "accountDoesNotExist") && !again && sent == 1:
		bound.DeactivatingAt = time.Time{} // the CA has refused it for sure
		if _, saveErr := b.save(ctx, bound); saveErr != nil {
			return fmt.Errorf("%w; and that could not be noted: %w", err, saveErr)
		}
		return err
	default:
		return fmt.Errorf("whether the CA has done it is not known: try again: %w", err)
	}
	bound.DeactivatedAt = time.Now().UTC()
	if _, err := b.save(ctx, bound); err != nil {
		return fmt.Errorf("the CA has deactivated it, but that could not be noted: try again: %w", err)
	}
	b.logger.Warn("the ACME account was deactivated; every record that names it is worthless now",
		zap.String("ca", bound.CA), zap.String("account", bound.URL), zap.Strings("records", b.store.ValidationNames(ctx)))
	return nil
}

// Replace registers another account in place of one that the CA has lost,
// which the operator has allowed. The lost one is kept beside it. An account whose key was
// changed meanwhile is not lost, and one that was deactivated from here is not replaced.
func (b *Book) Replace(ctx context.Context, lost *Error) error {
	storageKey, err := b.key()
	if err != nil {
		return err
	}
	return b.locked(ctx, nil, func() error {
		old, found, err := b.load(ctx, storageKey)
		if err != nil {
			return err
		}
		found = found && old.URL != ""
		if found && old.URL != lost.URL {
			return b.use(old) // another node was faster
		}
		if found {
			if !old.endedAt().IsZero() {
				return old.ended(nil)
			}
			if old.NextKeyPEM != "" {
				if old, err = b.resolve(ctx, old); err != nil {
					return fmt.Errorf("not replacing the account while a key rollover is pending: %w", err)
				}
			}
			if lost.thumbprint != "" && old.Thumbprint != lost.thumbprint {
				return b.use(old) // its key was changed
			}
			if err := b.store.Save(ctx, b.store.Key("lost", old.Thumbprint+".json"), old); err != nil {
				return err
			}
			if err := b.store.Remove(ctx, storageKey); err != nil {
				return err
			}
		}
		var bound binding
		if b.PinnedKeyPEM != "" {
			bound, err = b.bindPinnedKey(ctx, storageKey)
		} else {
			bound, err = b.register(ctx, storageKey)
		}
		if err != nil {
			return err
		}
		b.logger.Error("the CA has lost the account; registered another one, every record has to be published anew",
			zap.String("ca", b.CA.URL), zap.String("lost_account", lost.URL), zap.String("account", bound.URL),
			zap.Strings("records", lost.Names))
		b.memory.remember(bound)
		return b.use(bound)
	})
}
