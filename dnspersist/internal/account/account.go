// Package account keeps the account that records name: one for each CA, bound before anything is
// published and from then on the only one that is used.
//
// A record in DNS is worth what the account is worth that it names, so no account is ever taken in
// place of another: what does not fit is an Error. A key is in storage before the CA is sent it, and
// an old one until the CA has taken its successor, so that a process that ends anywhere goes on where
// it was. The key changes also while others use it: each conversation looks whether the CA's refusal
// is about a former key.
package account

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/ca"
)

// Config says which account is bound.
type Config struct {
	// CA is where the account is. Its store keeps the account.
	CA *ca.Server
	// Email is the contact of an account that has to be registered, and chooses which of `acme`'s
	// accounts is adopted.
	Email string
	// PinnedKeyPEM pins the account by its private key, PinnedURL by its URL: this one or none.
	PinnedKeyPEM, PinnedURL string
	// PinnedURI is what records name in the deployed dialect in place of the account's URL.
	PinnedURI string
	// External is the external account binding, if the CA wants one.
	External *acme.EAB
	// Reload is how long the bound account is used without looking in storage whether another process
	// has changed it. Default: 10 seconds.
	Reload time.Duration
}

// Holder is the account as a configuration binds it, with what is remembered of it between
// conversations with the CA.
type Holder struct {
	files
	memory memory
	// checking has room for one check at a time.
	checking chan struct{}
}

// New returns the holder of a configuration's account. It binds nothing yet.
func New(cfg Config) *Holder {
	cfg.Reload = cmp.Or(cfg.Reload, 10*time.Second)
	return &Holder{files: newFiles(cfg), checking: make(chan struct{}, 1)}
}

// Bind binds the account and returns it.
func (h *Holder) Bind(ctx context.Context) (Account, error) {
	b, err := h.open(ctx)
	if err != nil {
		return Account{}, err
	}
	if err := b.Bind(ctx); err != nil {
		return Account{}, err
	}
	bound, _ := h.memory.recall(h.Reload)
	if bound == nil {
		return Account{}, errors.New("the account was lost meanwhile")
	}
	return bound.public(), nil
}

// Book returns the account for a conversation with the CA.
func (h *Holder) Book(client *ca.Client) *Book { return &Book{Holder: h, client: client} }

// open begins a conversation in which the account itself is what matters.
func (h *Holder) open(ctx context.Context) (*Book, error) {
	client, err := h.CA.Open(ctx)
	if err != nil {
		return nil, err
	}
	return h.Book(client), nil
}

// Book is the account in one conversation with the CA. It has none before Bind or Load, and the
// embedded Identity is zero until then.
type Book struct {
	*Holder
	ca.Identity

	client  *ca.Client
	account acme.Account
}

// Do makes an exchange with the CA as ca.Client.Do does, signed with the account, and finds out
// whether a refusal is about a key that another process has changed: then the error is a
// KeyChangedError.
func (b *Book) Do(ctx context.Context, step string, fn func(account acme.Account) error) error {
	return b.DoUpTo(ctx, step, ca.MaxRetries, fn)
}

// DoUpTo is Do with fewer repetitions.
func (b *Book) DoUpTo(ctx context.Context, step string, retries int, fn func(account acme.Account) error) error {
	return b.orChanged(ctx, b.client.DoUpTo(ctx, step, retries, func() error { return fn(b.account) }))
}

// Once is ca.Client.Once, signed with the account.
func (b *Book) Once(fn func(account acme.Account) error) (status int, wait time.Duration, err error) {
	return b.client.Once(func() error { return fn(b.account) })
}

// memory is what is remembered of an account between conversations.
type memory struct {
	mu      sync.Mutex
	bound   *binding
	boundAt time.Time // when it was read
	gone    bool      // it was no longer in storage then
	// registered is the URL of an account that this process has registered.
	registered string
	// checkedURL and checkedKey, a thumbprint, are of the account that the CA has last confirmed.
	checkedURL, checkedKey string
	checkedAt              time.Time
	asked                  string // the key of a pending rollover that the CA was asked about
	askedAt                time.Time
}

// remember keeps a binding that was read or made just now.
func (m *memory) remember(bound binding) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.bound, m.boundAt = &bound, time.Now()
}

// recall returns the binding, nil if there is none, and whether it is time to look in storage again:
// for one conversation, so that the others go on with what is there.
func (m *memory) recall(reload time.Duration) (bound *binding, due bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if due = time.Since(m.boundAt) >= reload; due {
		m.boundAt = time.Now()
	}
	return m.bound, due
}

// forget makes the next Bind read storage, and the next Check ask the CA.
func (m *memory) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.bound, m.gone, m.checkedURL = nil, false, ""
}

// isGone notes whether the binding is in storage, and reports whether it was gone before.
func (m *memory) isGone(gone bool) (before bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	before, m.gone = m.gone, gone
	return before
}

// hasChecked reports whether the CA has confirmed an account lately.
func (m *memory) hasChecked(url, thumbprint string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.checkedURL == url && m.checkedKey == thumbprint && time.Since(m.checkedAt) < checkFresh
}

// passed notes that the CA has confirmed an account.
func (m *memory) passed(url, thumbprint string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.checkedURL, m.checkedKey, m.checkedAt = url, thumbprint, time.Now()
}

// hasAsked reports whether the CA was asked lately about the next key of a rollover.
func (m *memory) hasAsked(next string, lately time.Duration) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.asked == next && time.Since(m.askedAt) < lately
}

// IsNew reports whether this process has registered the account.
func (b *Book) IsNew() bool {
	b.memory.mu.Lock()
	defer b.memory.mu.Unlock()
	return b.URL != "" && b.memory.registered == b.URL
}
