package acmepersist

import (
	"context"
	"fmt"
	"time"

	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/ca"
)

// DeactivateAccount ends the bound account at the CA (RFC 8555 section 7.3.6), for ever:
// every record that names it is worthless afterwards. The url must be the bound account's,
// so that nobody ends the wrong one. Nothing is ever registered in its place.
//
// That it is asked for is noted before the CA acts: a call that is cut short can be
// repeated, and no account is registered in between, also where OnAccountLost says so.
func (iss *Issuer) DeactivateAccount(ctx context.Context, url string) error {
	s, err := iss.open(ctx)
	if err != nil {
		return fmt.Errorf("deactivating the account %s: %w", url, err)
	}
	err = s.store.Locked(ctx, s.accountLock(), nil, func() error {
		bound, err := s.mustKnow(ctx)
		if err != nil {
			return err
		}
		if bound.URL != url {
			return fmt.Errorf("the bound account at %s is %s, nothing was done: give exactly its URL", iss.CA, bound.URL)
		}
		if !bound.DeactivatedAt.IsZero() {
			return nil
		}
		return s.deactivate(ctx, bound)
	})
	iss.forgetBound()
	if err != nil {
		return fmt.Errorf("deactivating the account %s: %w", url, err)
	}
	return nil
}

func (s *session) deactivate(ctx context.Context, bound boundAccount) error {
	var err error
	if bound.NextKeyPEM != "" {
		if bound, err = s.resolve(ctx, bound); err != nil {
			return fmt.Errorf("a key rollover is pending: %w", err)
		}
	}
	account, err := s.accountOf(bound)
	if err != nil {
		return err
	}
	again := !bound.DeactivatingAt.IsZero()
	bound.DeactivatingAt = time.Now().UTC()
	if bound, err = s.saveBinding(ctx, bound); err != nil {
		return err
	}
	var answer acme.Account
	sent := 0
	err = s.step(ctx, "asking the CA to deactivate the account", func() (err error) {
		sent++
		answer, err = s.ACME.UpdateAccount(ctx, acme.Account{
			Status: acme.StatusDeactivated, Location: account.Location, PrivateKey: account.PrivateKey,
		})
		return err
	})
	switch {
	case err == nil && answer.Status == acme.StatusDeactivated:
	case err == nil:
		return fmt.Errorf("the CA answered, but the account's status is %q: try again", answer.Status)
	case ca.IsProblem(err, "unauthorized") && (again || sent > 1) && s.endedAtCA(ctx, account):
		// an earlier request, whose answer was lost, had done it
	case ca.IsProblem(err, "unauthorized", "malformed", "accountDoesNotExist") && !again && sent == 1:
		bound.DeactivatingAt = time.Time{} // the CA has refused it for sure
		if _, saveErr := s.saveBinding(ctx, bound); saveErr != nil {
			return fmt.Errorf("%w; and that could not be noted: %w", err, saveErr)
		}
		return err
	default:
		return fmt.Errorf("whether the CA has done it is not known: try again: %w", err)
	}
	bound.DeactivatedAt = time.Now().UTC()
	if _, err := s.saveBinding(ctx, bound); err != nil {
		return fmt.Errorf("the CA has deactivated it, but that could not be noted: try again: %w", err)
	}
	s.logger.Warn("the ACME account was deactivated; every record that names it is worthless now",
		zap.String("ca", bound.CA), zap.String("account", bound.URL), zap.Strings("records", s.store.ValidationNames(ctx)))
	return nil
}

// endedAtCA asks for the account itself, of which `unauthorized` can mean one thing only.
func (s *session) endedAtCA(ctx context.Context, account acme.Account) bool {
	status, err := s.askAccount(ctx, account)
	return ca.IsProblem(err, "unauthorized") || err == nil && status == acme.StatusDeactivated
}

// endedAt is when DeactivateAccount has ended the account or last tried to; zero if never.
func (b boundAccount) endedAt() time.Time {
	if !b.DeactivatedAt.IsZero() {
		return b.DeactivatedAt
	}
	return b.DeactivatingAt
}

// ended is the error for every use of an account that DeactivateAccount has ended, with
// what the CA said last, if anything.
func (b boundAccount) ended(reason error) *AccountError {
	at := b.endedAt()
	what := fmt.Sprintf("it was deactivated from here on %s", at.Format(time.RFC3339))
	if b.DeactivatedAt.IsZero() {
		what = fmt.Sprintf("its deactivation was begun on %s and has not come to an end: deactivate it once more", at.Format(time.RFC3339))
	}
	copies := ""
	if b.Origin == originAdopted {
		copies = " and the copy of `acme` it was adopted from"
	}
	err := fmt.Errorf("%s; no account is registered in its place: "+
		"to go on with a new account remove %s%s from storage, restart, and publish the records that are asked for then",
		what, b.at, copies)
	if reason != nil {
		err = fmt.Errorf("%w; the CA said: %w", err, reason)
	}
	return &AccountError{CA: b.CA, URL: b.URL, DeactivatedAt: at, Err: err, thumbprint: b.Thumbprint}
}
