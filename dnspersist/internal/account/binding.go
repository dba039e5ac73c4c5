package account

import (
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/ca"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
	"github.com/dnspersist/caddy-dnspersist/internal/walltime"
)

// Origins of a bound account.
const (
	originRegistered = "registered"
	originAdopted    = "adopted from acme"
	originKey        = "account_key"
)

// binding is the account that every published record names, as it is kept in
// storage: one file with all that is needed to go on after everything else is lost.
type binding struct {
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
	// DeactivatingAt is when Deactivate last asked the CA, DeactivatedAt when
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

// Check reports what a file has to hold: without a key it is not an account.
func (b *binding) Check() error {
	_, err := b.signer()
	return err
}

// Account is what may be shown of the bound account: everything but its key.
type Account struct {
	CA         string    `json:"ca"`
	URL        string    `json:"url"`
	Thumbprint string    `json:"thumbprint"`
	Contact    []string  `json:"contact,omitempty"`
	Origin     string    `json:"origin"`
	BoundAt    time.Time `json:"bound_at"`
}

func (b binding) public() Account {
	return Account{b.CA, b.URL, b.Thumbprint, b.Contact, b.Origin, b.BoundAt}
}

func (b binding) signer() (crypto.Signer, error) { return decodeKey(b.KeyPEM, "the account key") }

func decodeKey(text, what string) (crypto.Signer, error) {
	key, err := certmagic.PEMDecodePrivateKey([]byte(text))
	if err != nil {
		// the cause could quote the key
		return nil, fmt.Errorf("%s is not a PEM-encoded private key", what)
	}
	return key, nil
}

// acme is the account for requests.
func (b binding) acme() (acme.Account, error) {
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

// newBinding makes an unregistered binding around a key.
func newBinding(ca, origin string, key crypto.Signer, contact []string) (binding, error) {
	pem, err := certmagic.PEMEncodePrivateKey(key)
	if err != nil {
		return binding{}, fmt.Errorf("encoding the account key: %w", err)
	}
	thumb, err := thumbprintOf(key)
	if err != nil {
		return binding{}, err
	}
	return binding{CA: ca, Thumbprint: thumb, Contact: contact, Origin: origin, BoundAt: time.Now().UTC(), KeyPEM: string(pem)}, nil
}

func newKey() (crypto.Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generating an account key: %w", err)
	}
	return key, nil
}

// State is what there is to know of the bound account, but its keys.
type State struct {
	Account
	// EarlierThumbprints are those of former keys, the latest first.
	EarlierThumbprints []string `json:"earlier_thumbprints,omitempty"`
	// StorageKey is where the binding lies: the file to back up.
	StorageKey string `json:"storage_key"`
	// PendingRollover is true if RollKey was cut short.
	PendingRollover bool `json:"pending_rollover"`
	// RolledAt is when the key was last changed.
	RolledAt time.Time `json:"rolled_at,omitzero"`
	// DeactivatingAt and DeactivatedAt are when Deactivate asked the CA and when
	// that was done.
	DeactivatingAt time.Time `json:"deactivating_at,omitzero"`
	DeactivatedAt  time.Time `json:"deactivated_at,omitzero"`
	// IssuerDomainNames, Dialect and AccountHashPrefix are what records are made with beside
	// the account, as far as it is known without an order. They are empty where the CA was not
	// asked.
	IssuerDomainNames []string       `json:"issuer_domain_names,omitempty"`
	Dialect           record.Dialect `json:"dialect,omitempty"`
	AccountHashPrefix string         `json:"account_hash_prefix,omitempty"`
	// Status is what the CA answers: valid, deactivated or unknown, with the Problem.
	// It is empty where the CA was not asked.
	Status  string `json:"status,omitempty"`
	Problem string `json:"problem,omitempty"`
}

func (b binding) state() State {
	return State{
		Account: b.public(), EarlierThumbprints: b.EarlierThumbprints, StorageKey: b.at, PendingRollover: b.NextKeyPEM != "",
		RolledAt: b.RolledAt, DeactivatingAt: b.DeactivatingAt, DeactivatedAt: b.DeactivatedAt,
	}
}

// check holds a binding that comes from elsewhere against itself and the CA.
func (b binding) check(directory string) error {
	if b.CA != directory {
		return fmt.Errorf("the account is one of the CA %s, and the CA here is %s: use it with its own", b.CA, directory)
	}
	u, err := url.Parse(b.URL)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
		return errors.New("its url is not an account URL (http or https)")
	}
	if err := ca.CheckEncrypted(directory, b.URL); err != nil {
		return fmt.Errorf("its url: %w", err)
	}
	key, err := b.signer()
	if err != nil {
		return fmt.Errorf("account %s: %w", b.URL, err)
	}
	thumbprint, err := thumbprintOf(key)
	if err != nil {
		return fmt.Errorf("account %s: %w", b.URL, err)
	}
	if thumbprint != b.Thumbprint {
		return fmt.Errorf("account %s: the key's thumbprint is %s, but the member thumbprint is %q: key and account do not belong together",
			b.URL, thumbprint, b.Thumbprint)
	}
	if b.NextKeyPEM != "" {
		if _, err := decodeKey(b.NextKeyPEM, "the next key"); err != nil {
			return fmt.Errorf("account %s: %w", b.URL, err)
		}
	}
	return nil
}

// olderThan reports whether b has a former key of the same account.
func (b binding) olderThan(other binding) bool {
	return b.Thumbprint != other.Thumbprint && slices.Contains(other.EarlierThumbprints, b.Thumbprint)
}

// promoted is the binding after the key of a rollover has become the account's.
func (b binding) promoted(next crypto.Signer) (binding, error) {
	thumbprint, err := thumbprintOf(next)
	if err != nil {
		return b, err
	}
	b.EarlierThumbprints = prepend(b.EarlierThumbprints, b.Thumbprint)
	b.Thumbprint, b.KeyPEM, b.NextKeyPEM = thumbprint, b.NextKeyPEM, ""
	b.RolledAt = walltime.Now().UTC()
	return b, nil
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

// endedAt is when Deactivate has ended the account or last tried to; zero if never.
func (b binding) endedAt() time.Time { return cmp.Or(b.DeactivatedAt, b.DeactivatingAt) }

// ended is the error for every use of an account that Deactivate has ended, with
// what the CA answered last, if anything.
func (b binding) ended(reason error) *Error {
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
		err = fmt.Errorf("%w; the CA answered: %w", err, reason)
	}
	return &Error{CA: b.CA, URL: b.URL, DeactivatedAt: at, Err: err, thumbprint: b.Thumbprint}
}
