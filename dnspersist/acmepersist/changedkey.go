package acmepersist

import (
	"context"
	"fmt"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/ca"
)

// KeyChangedError says that the account's key was changed by another process, by a rollover
// or an import, while it was in use here. Nothing is lost: the next attempt uses the new key.
type KeyChangedError struct {
	// CA is the directory URL.
	CA string
	// URL is that of the account that is bound now, Thumbprint that of its key.
	URL, Thumbprint string
	// OldURL and OldThumbprint are those that the CA has refused.
	OldURL, OldThumbprint string
	// Err is what the CA said. It is not unwrapped: it says nothing of the bound account.
	Err error
}

func (e *KeyChangedError) Error() string {
	what := "the key of the ACME account " + e.URL
	if e.OldURL != e.URL {
		what = fmt.Sprintf("the ACME account %s, now %s,", e.OldURL, e.URL)
	}
	return fmt.Sprintf("%s at %s was changed meanwhile (thumbprint %s, now %s); it is tried again with the new key: %v",
		what, e.CA, e.OldThumbprint, e.Thumbprint, e.Err)
}

// heedChangedKey looks in storage whether the CA's refusal is about a key that is the
// account's no more. Other errors pass.
func (s *session) heedChangedKey(ctx context.Context, err error) error {
	// CAs differ in what they say to a signature by a former key
	if s.account.Location == "" || !ca.IsProblem(err, "unauthorized", "malformed", "accountDoesNotExist") {
		return err
	}
	if _, changed := s.changedKey(ctx, err); changed != nil {
		return changed
	}
	return err
}

// changedKey compares the session's key with the one in storage, after a rollover that may
// be pending has been resolved. It returns what is stored, and an error that can be tried
// again if the keys differ or that cannot be told.
func (s *session) changedKey(ctx context.Context, reason error) (boundAccount, error) {
	stored, found, err := s.knownBinding(ctx)
	if err != nil || !found {
		return boundAccount{}, nil //nolint:nilerr // then the reason counts
	}
	if stored.NextKeyPEM != "" {
		if stored, err = s.resolveLocked(ctx, stored, askNextSoon); err != nil {
			return stored, fmt.Errorf("a key rollover of the ACME account %s at %s is pending and could not be resolved (%w), after: %s",
				stored.URL, s.iss.CA, err, reason.Error())
		}
	}
	key, err := stored.signer()
	if err != nil {
		return stored, nil //nolint:nilerr // then the reason counts
	}
	thumbprint, err := thumbprintOf(key)
	if err != nil || thumbprint == s.thumbprint {
		return stored, nil //nolint:nilerr // then the reason counts
	}
	s.iss.forgetBound()
	return stored, &KeyChangedError{
		CA: s.iss.CA, URL: stored.URL, Thumbprint: thumbprint,
		OldURL: s.account.Location, OldThumbprint: s.thumbprint, Err: reason,
	}
}
