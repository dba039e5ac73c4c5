package acmepersist

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/ca"
)

// Origins of a bound account.
const (
	originRegistered = "registered"
	originAdopted    = "adopted from acme"
	originKey        = "account_key"
)

// boundAccount is the account that every standing record names, as it is kept in
// storage: one file with all that is needed to go on after everything else is lost.
type boundAccount struct {
	// CA is the directory URL.
	CA string `json:"ca"`
	// URL is empty from the moment the key is stored until the CA has answered
	// new-account: a crash in between must not lose the account.
	URL        string `json:"url,omitempty"`
	Thumbprint string `json:"thumbprint"`
	// EarlierThumbprints are those of the account's former keys, the latest first.
	EarlierThumbprints []string  `json:"earlier_thumbprints,omitempty"`
	Contact            []string  `json:"contact,omitempty"`
	Origin             string    `json:"origin"`
	BoundAt            time.Time `json:"bound_at"`
	// RolledAt is when the key was last changed.
	RolledAt time.Time `json:"rolled_at,omitzero"`
	// DeactivatingAt is when DeactivateAccount last asked the CA, DeactivatedAt when
	// the CA had done it.
	DeactivatingAt time.Time `json:"deactivating_at,omitzero"`
	DeactivatedAt  time.Time `json:"deactivated_at,omitzero"`
	KeyPEM         string    `json:"key"`
	// NextKeyPEM is the key of a rollover that was begun. Which of the two is the
	// account's only the CA knows.
	NextKeyPEM string `json:"next_key,omitempty"`

	// at is where it lies in storage, empty if it is not one of our files.
	at string
}

// Check reports what a file has to hold: without a key it is no account.
func (b *boundAccount) Check() error {
	_, err := b.signer()
	return err
}

// Account is what may be told about the bound account: everything but its key.
type Account struct {
	CA         string    `json:"ca"`
	URL        string    `json:"url"`
	Thumbprint string    `json:"thumbprint"`
	Contact    []string  `json:"contact,omitempty"`
	Origin     string    `json:"origin"`
	BoundAt    time.Time `json:"bound_at"`
}

func (b boundAccount) public() Account {
	return Account{b.CA, b.URL, b.Thumbprint, b.Contact, b.Origin, b.BoundAt}
}

func (b boundAccount) signer() (crypto.Signer, error) { return decodeKey(b.KeyPEM, "the account key") }

func decodeKey(text, what string) (crypto.Signer, error) {
	key, err := certmagic.PEMDecodePrivateKey([]byte(text))
	if err != nil {
		// the cause could quote the key
		return nil, fmt.Errorf("%s is no PEM-encoded private key", what)
	}
	return key, nil
}

// acme is the account for requests.
func (b boundAccount) acme() (acme.Account, error) {
	key, err := b.signer()
	if err != nil {
		return acme.Account{}, err
	}
	return acme.Account{Status: acme.StatusValid, Contact: b.Contact, Location: b.URL, PrivateKey: key}, nil
}

func thumbprintOf(key crypto.Signer) (string, error) {
	thumbprint, err := (&acme.Account{PrivateKey: key}).Thumbprint()
	if err != nil {
		return "", fmt.Errorf("computing the account key's thumbprint: %w", err)
	}
	return thumbprint, nil
}

// newBound makes an unregistered binding around a key.
func newBound(ca, origin string, key crypto.Signer, contact []string) (boundAccount, error) {
	pem, err := certmagic.PEMEncodePrivateKey(key)
	if err != nil {
		return boundAccount{}, fmt.Errorf("encoding the account key: %w", err)
	}
	thumb, err := thumbprintOf(key)
	if err != nil {
		return boundAccount{}, err
	}
	return boundAccount{CA: ca, Thumbprint: thumb, Contact: contact, Origin: origin, BoundAt: time.Now().UTC(), KeyPEM: string(pem)}, nil
}

func generateAccountKey() (crypto.Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generating an account key: %w", err)
	}
	return key, nil
}

// checkFresh is how long an account check (section 4.5 of the draft) is good for.
const checkFresh = time.Hour

// checkAccount asks the CA for the account with a POST-as-GET of exactly its URL
// and wants to see it valid. Nothing is shown to anybody for publishing before:
// it is the only defence against a substituted account URL.
func (s *session) checkAccount(ctx context.Context) error {
	if s.checkedLately() {
		return nil
	}
	// a start with thousands of names asks once
	select {
	case s.iss.checking <- struct{}{}:
		defer func() { <-s.iss.checking }()
	case <-ctx.Done():
		return fmt.Errorf("checking the ACME account: %w", context.Cause(ctx))
	}
	if s.checkedLately() {
		return nil
	}
	status, err := s.askAccount(ctx, s.account)
	if err != nil {
		return s.accountProblem(ctx, err)
	}
	if status != acme.StatusValid {
		return s.lostAccount(ctx, fmt.Errorf("its status at the CA is %q, not valid", status))
	}
	s.iss.mu.Lock()
	s.iss.checkedURL, s.iss.checkedKey, s.iss.checkedAt = s.account.Location, s.thumbprint, time.Now()
	s.iss.mu.Unlock()
	return nil
}

// askAccount asks for the status of an account with its URL and key.
func (s *session) askAccount(ctx context.Context, account acme.Account) (string, error) {
	var answer acme.Authorization
	err := s.step(ctx, "checking the ACME account", func() (err error) {
		// acmez has no plain POST-as-GET; the getter of authorizations is one
		answer, err = s.ACME.GetAuthorization(ctx, account, account.Location)
		return err
	})
	if ca.IsProblem(err, "malformed") {
		err = fmt.Errorf("%w; the CA does not accept the key with the thumbprint %s for %s: it may have been changed elsewhere, then take it from there with `account export` and bring it here with `account import`",
			err, s.thumbprint, account.Location)
	}
	return answer.Status, err
}

func (s *session) checkedLately() bool {
	s.iss.mu.Lock()
	defer s.iss.mu.Unlock()
	return s.iss.checkedURL == s.account.Location && s.iss.checkedKey == s.thumbprint && time.Since(s.iss.checkedAt) < checkFresh
}

// accountProblem turns the CA's word that it does not accept our account into an
// AccountError; other errors pass.
func (s *session) accountProblem(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if ca.IsProblem(err, "accountDoesNotExist") {
		return s.lostAccount(ctx, fmt.Errorf("the CA does not know it: %w", err))
	}
	var p acme.Problem
	if ca.IsProblem(err, "unauthorized") && errors.As(err, &p) && s.looksDeactivated(ctx) {
		return s.lostAccount(ctx, fmt.Errorf("the CA does not accept it, it may be deactivated: %w", err))
	}
	return err
}

// looksDeactivated asks for the account itself: `unauthorized` can mean many
// things, but for a request about nothing but the account only one.
func (s *session) looksDeactivated(ctx context.Context) bool {
	answer, err := s.ACME.GetAuthorization(ctx, s.account, s.account.Location)
	if err != nil {
		return ca.IsProblem(err, "unauthorized", "accountDoesNotExist")
	}
	return answer.Status != acme.StatusValid
}

// lostAccount makes the error for an account that is gone, and forgets what was
// cached about it, so that a restored CA is noticed at the next attempt. If the account's
// key was changed meanwhile it is not gone.
func (s *session) lostAccount(ctx context.Context, reason error) error {
	s.iss.forgetBound()
	stored, changed := s.changedKey(ctx, reason)
	if changed != nil {
		return changed
	}
	if at := stored.endedAt(); !at.IsZero() {
		return stored.ended(reason)
	}
	return &AccountError{
		CA: s.iss.CA, URL: s.account.Location, Names: s.store.ValidationNames(ctx), Err: reason, thumbprint: s.thumbprint,
	}
}
