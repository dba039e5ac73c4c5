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
	"crypto"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/ca"
)

// Config chooses which account is bound.
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
func (b *Book) Once(step string, fn func(account acme.Account) error) (status int, wait time.Duration, err error) {
	return b.client.Once(step, func() error { return fn(b.account) })
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

// renew puts what storage has now in place of what was remembered before, unless that has changed. The next Bind looks
// in storage as if nothing had been read.
func (m *memory) renew(before *binding, fresh binding) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.bound == before {
		m.bound = &fresh
	}
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

// ErrNoAccount is that no account is bound yet, so nothing can name it.
var ErrNoAccount = errors.New("no ACME account is bound yet")

// Error is an account that cannot be used: the CA does not know it, has
// it deactivated, or it is not the configured one. No other account was taken in its place.
type Error struct {
	// CA is the directory URL.
	CA string
	// URL is the account's URL, empty if it is not known.
	URL string
	// Names are the validation names whose records name the account.
	Names []string
	// DeactivatedAt is set if Deactivate has ended the account: it is never
	// replaced, whatever was asked for where an account is lost.
	DeactivatedAt time.Time
	// Err is the reason.
	Err error

	// thumbprint is that of the key which was used.
	thumbprint string
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("ACME account")
	if e.URL != "" {
		b.WriteString(" " + e.URL)
	}
	fmt.Fprintf(&b, " at %s cannot be used: %v", e.CA, e.Err)
	if len(e.Names) > 0 {
		const most = 10
		names, more := e.Names, ""
		if len(names) > most {
			names, more = names[:most], fmt.Sprintf(" and %d more", len(e.Names)-most)
		}
		fmt.Fprintf(&b, "; records at stake: %s%s", strings.Join(names, ", "), more)
	}
	return b.String()
}

func (e *Error) Unwrap() error { return e.Err }

// KeyChangedError is a key of the account that another process has changed, by a rollover or an
// import, while it was in use here. Nothing is lost: the next attempt uses the new key.
type KeyChangedError struct {
	// CA is the directory URL.
	CA string
	// URL is that of the account that is bound now, Thumbprint that of its key.
	URL, Thumbprint string
	// OldURL and OldThumbprint are those that the CA has refused.
	OldURL, OldThumbprint string
	// Err is what the CA answered. It is not unwrapped: it is not about the bound account.
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

// The questions of this file name the account with each request. They are about accounts that are not
// in use, or not yet, so nothing is found out about a changed key.

// statusOf asks once for the status of an account with its URL and key.
func statusOf(ctx context.Context, client *ca.Client, account acme.Account) (string, error) {
	// acmez has no plain POST-as-GET; the getter of authorizations is one
	answer, err := client.ACME.GetAuthorization(ctx, account, account.Location)
	return answer.Status, err
}

// ask is statusOf as a step.
func ask(ctx context.Context, client *ca.Client, account acme.Account) (status string, err error) {
	err = client.Do(ctx, "checking the ACME account", func() (err error) {
		status, err = statusOf(ctx, client, account)
		return err
	})
	return status, explained(err, account)
}

// explained adds to the CA's answer what to do where it does not accept the account's key.
func explained(err error, account acme.Account) error {
	if !ca.IsProblem(err, "malformed") {
		return err
	}
	thumbprint, _ := account.Thumbprint()
	return fmt.Errorf("%w; the CA does not accept the key with the thumbprint %s for %s: it may have been changed elsewhere, then take it from there with `account export` and bring it here with `account import`",
		err, thumbprint, account.Location)
}

// accountOf asks the CA for the account of a key (RFC 8555 section 7.3.1).
func accountOf(ctx context.Context, client *ca.Client, step string, key crypto.Signer, retries int) (account acme.Account, err error) {
	err = client.DoUpTo(ctx, step, retries, func() (err error) {
		account, err = client.ACME.GetAccount(ctx, acme.Account{PrivateKey: key})
		return err
	})
	return account, err
}

// knows asks the CA whether a key is the account's. A key of
// another account is an error.
func knows(ctx context.Context, client *ca.Client, url string, key crypto.Signer, retries int) (bool, error) {
	account, err := accountOf(ctx, client, "asking the CA whose the new key is", key, retries)
	switch {
	case ca.IsProblem(err, "accountDoesNotExist"):
		return false, nil
	case err != nil:
		return false, err
	case account.Location != url:
		return false, fmt.Errorf("asking the CA whose the new key is: it names the account %q, the bound account is %s: "+
			"nothing was changed; keep the storage and ask the CA", account.Location, url)
	}
	return true, nil
}

// confirm asks the CA whose the key is, and then for the account with the binding's URL and key
// (section 4.5 of draft -02: the URL is confirmed before it is used). The URL comes from a file:
// nothing is signed for it before the CA's new-account has named it. It may be on any host, for
// some CAs have their accounts on another one than their directory.
func confirm(ctx context.Context, client *ca.Client, b binding) error {
	account, err := b.acme()
	if err != nil {
		return err
	}
	refused := func(err error) error {
		return fmt.Errorf("the CA does not accept the account %s with the key of thumbprint %s; its key may have been changed, "+
			"or it was deactivated: %w", b.URL, b.Thumbprint, err)
	}
	named, err := accountOf(ctx, client, "asking the CA whose the key is", account.PrivateKey, ca.MaxRetries)
	switch {
	case ca.IsProblem(err, "malformed", "unauthorized", "accountDoesNotExist"):
		return refused(err)
	case err != nil:
		return err
	case named.Location != b.URL:
		return fmt.Errorf("the CA names the account of this key %q, and the file %s: nothing was sent to the file's URL, which is not the account's; "+
			"take the file from a fresh `account export`", named.Location, b.URL)
	}
	status, err := ask(ctx, client, account)
	switch {
	case ca.IsProblem(err, "malformed", "unauthorized", "accountDoesNotExist"):
		return refused(err)
	case err != nil:
		return err
	case status != acme.StatusValid:
		return fmt.Errorf("the status of the account %s at the CA is %q, not valid", b.URL, status)
	}
	return nil
}

// isEnded asks for the account itself, of which `unauthorized` can mean one thing only.
func isEnded(ctx context.Context, client *ca.Client, account acme.Account) bool {
	status, err := ask(ctx, client, account)
	return ca.IsProblem(err, "unauthorized") || err == nil && status == acme.StatusDeactivated
}
