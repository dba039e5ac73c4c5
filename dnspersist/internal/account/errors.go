package account

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

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
