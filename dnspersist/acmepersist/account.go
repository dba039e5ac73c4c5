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
	KeyPEM             string    `json:"key"`
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

func (b boundAccount) signer() (crypto.Signer, error) {
	key, err := certmagic.PEMDecodePrivateKey([]byte(b.KeyPEM))
	if err != nil {
		// the cause could quote the key
		return nil, errors.New("the account key is no PEM-encoded private key")
	}
	return key, nil
}

// newBound makes an unregistered binding around a key.
func newBound(ca, origin string, key crypto.Signer, contact []string) (boundAccount, error) {
	pem, err := certmagic.PEMEncodePrivateKey(key)
	if err != nil {
		return boundAccount{}, fmt.Errorf("encoding the account key: %w", err)
	}
	thumb, err := (&acme.Account{PrivateKey: key}).Thumbprint()
	if err != nil {
		return boundAccount{}, fmt.Errorf("computing the account key's thumbprint: %w", err)
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
	var answer acme.Authorization
	err := s.step(ctx, "checking the ACME account", func() (err error) {
		// acmez has no plain POST-as-GET; the getter of authorizations is one
		answer, err = s.client.GetAuthorization(ctx, s.account, s.account.Location)
		return err
	})
	if err != nil {
		return s.accountProblem(ctx, err)
	}
	if answer.Status != acme.StatusValid {
		return s.lostAccount(ctx, fmt.Errorf("its status at the CA is %q, not valid", answer.Status))
	}
	s.iss.mu.Lock()
	s.iss.checkedURL, s.iss.checkedAt = s.account.Location, time.Now()
	s.iss.mu.Unlock()
	return nil
}

func (s *session) checkedLately() bool {
	s.iss.mu.Lock()
	defer s.iss.mu.Unlock()
	return s.iss.checkedURL == s.account.Location && time.Since(s.iss.checkedAt) < checkFresh
}

// accountProblem turns the CA's word that it does not accept our account into an
// AccountError; other errors pass.
func (s *session) accountProblem(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if isProblem(err, "accountDoesNotExist") {
		return s.lostAccount(ctx, fmt.Errorf("the CA does not know it: %w", err))
	}
	var p acme.Problem
	if isProblem(err, "unauthorized") && errors.As(err, &p) && s.looksDeactivated(ctx) {
		return s.lostAccount(ctx, fmt.Errorf("the CA does not accept it, it may be deactivated: %w", err))
	}
	return err
}

// looksDeactivated asks for the account itself: `unauthorized` can mean many
// things, but for a request about nothing but the account only one.
func (s *session) looksDeactivated(ctx context.Context) bool {
	answer, err := s.client.GetAuthorization(ctx, s.account, s.account.Location)
	if err != nil {
		return isProblem(err, "unauthorized", "accountDoesNotExist")
	}
	return answer.Status != acme.StatusValid
}

// lostAccount makes the error for an account that is gone, and forgets what was
// cached about it, so that a restored CA is noticed at the next attempt.
func (s *session) lostAccount(ctx context.Context, reason error) error {
	s.iss.mu.Lock()
	s.iss.bound, s.iss.checkedURL = nil, ""
	s.iss.mu.Unlock()
	return &AccountError{CA: s.iss.CA, URL: s.account.Location, Names: s.store.recordNames(ctx), Err: reason}
}
