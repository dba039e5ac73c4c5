package ca

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/mholt/acmez/v3/acme"
)

// NotOfferedError is a CA that does not offer dns-persist-01.
type NotOfferedError struct {
	// CA is the directory URL.
	CA string
	// Offered are the challenge types that it offered instead.
	Offered []string
	// SeenAt is when it was asked, RetryAt when it will be asked again.
	SeenAt, RetryAt time.Time
}

func (e *NotOfferedError) Error() string {
	return fmt.Sprintf("the CA %s does not offer the challenge dns-persist-01, it offers %s (seen %s, asked again after %s): "+
		"no record in DNS can change that, choose another CA or put another issuer behind this one",
		e.CA, strings.Join(e.Offered, ", "), e.SeenAt.UTC().Format(time.RFC3339), e.RetryAt.UTC().Format(time.RFC3339))
}

// RateLimitedError is a CA that asks to come back later than one attempt can wait.
type RateLimitedError struct {
	// RetryAt is when the CA may be asked again.
	RetryAt time.Time
	// URL is the page that the CA wants somebody to visit, or that explains its limit; empty
	// if it names none.
	URL string
	Err error
}

func (e *RateLimitedError) Error() string {
	return fmt.Sprintf("the CA asks to wait until %s: %v", e.RetryAt.UTC().Format(time.RFC3339), e.Err)
}

func (e *RateLimitedError) Unwrap() error { return e.Err }

// IsRateLimited reports whether err is about a CA that is not to be asked for now.
func IsRateLimited(err error) bool {
	var limited *RateLimitedError
	return errors.As(err, &limited)
}

// AccountURIError is a CA that expects another account URI in the record than
// our account's. Publishing it could authorize somebody else, so nothing goes on
// until the operator pins it.
type AccountURIError struct {
	CA, Identifier, Expected, Ours string
}

func (e *AccountURIError) Error() string {
	return fmt.Sprintf("the challenge of %s for %s wants the account URI %q in the record, ours is %q: "+
		"if the CA's documentation says that this is right, set account_uri to it; otherwise somebody may be tampering with the connection",
		e.CA, e.Identifier, e.Expected, e.Ours)
}

// IsProblem reports whether err carries an ACME problem of one of the types
// (without the namespace).
func IsProblem(err error, types ...string) bool {
	var p acme.Problem
	if !errors.As(err, &p) {
		return false
	}
	for _, t := range types {
		if p.Type == acme.ProblemTypeNamespace+t {
			return true
		}
	}
	return false
}

// DownError is a CA that does not answer, or answers with errors of its own.
type DownError struct {
	// CA is the directory URL.
	CA  string
	Err error
}

func (e *DownError) Error() string { return e.Err.Error() }

func (e *DownError) Unwrap() error { return e.Err }
