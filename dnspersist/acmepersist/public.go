package acmepersist

import (
	"net/http"
	"time"

	"golang.org/x/time/rate"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/ca"
)

// ChallengeType is the type of the challenge (draft-ietf-acme-dns-persist, section 4).
const ChallengeType = ca.ChallengeType

// What a CA refuses with.
type (
	// NotOfferedError is a CA that does not offer dns-persist-01.
	NotOfferedError = ca.NotOfferedError
	// RateLimitedError is a CA that asks to come back later than one attempt can wait.
	RateLimitedError = ca.RateLimitedError
	// AccountURIError is a CA that wants another account URI in the record than our account's.
	AccountURIError = ca.AccountURIError
)

// NewTransport returns what carries requests to a CA where Config has no Transport: a connection
// that goes silent is given up after half a minute.
func NewTransport() *http.Transport { return ca.NewTransport() }

// SharedLimiter returns a Config.Limiter that allows a number of orders in a window, for each CA
// and account in this process.
func SharedLimiter(directory string, orders int, window time.Duration) func(account string) *rate.Limiter {
	return ca.SharedLimiter(directory, orders, window)
}
