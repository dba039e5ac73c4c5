package acmepersist

import (
	"context"
	"fmt"

	"go.uber.org/zap"
)

// replaceLost registers another account in place of one that the CA has lost,
// which the operator has allowed. The lost one is kept beside it. An account whose key was
// changed meanwhile is not lost, and one that was deactivated from here is not replaced.
func (s *session) replaceLost(ctx context.Context, lost *AccountError) error {
	storageKey, err := s.bindingKey()
	if err != nil {
		return err
	}
	return s.store.Locked(ctx, s.accountLock(), nil, func() error {
		old, found, err := s.store.loadBound(ctx, storageKey)
		if err != nil {
			return err
		}
		found = found && old.URL != ""
		if found && old.URL != lost.URL {
			return s.use(old) // another node was faster
		}
		if found {
			if !old.endedAt().IsZero() {
				return old.ended(nil)
			}
			if old.NextKeyPEM != "" {
				if old, err = s.resolve(ctx, old); err != nil {
					return fmt.Errorf("not replacing the account while a key rollover is pending: %w", err)
				}
			}
			if lost.thumbprint != "" && old.Thumbprint != lost.thumbprint {
				return s.use(old) // its key was changed
			}
			if err := s.store.Save(ctx, s.store.Key("lost", old.Thumbprint+".json"), old); err != nil {
				return err
			}
			if err := s.store.Remove(ctx, storageKey); err != nil {
				return err
			}
		}
		var bound boundAccount
		if s.iss.AccountKeyPEM != "" {
			bound, err = s.bindPinnedKey(ctx, storageKey)
		} else {
			bound, err = s.register(ctx, storageKey)
		}
		if err != nil {
			return err
		}
		s.logger.Error("the CA has lost the account; registered another one, every record has to be published anew",
			zap.String("ca", s.iss.CA), zap.String("lost_account", lost.URL), zap.String("account", bound.URL),
			zap.Strings("records", lost.Names))
		s.iss.rememberBound(bound)
		return s.use(bound)
	})
}
