package acmepersist

import (
	"errors"
	"net/http"
	"regexp"
	"strings"
	"time"
)

// status429 is the number by itself, not within an address, an id or a serial.
var status429 = regexp.MustCompile(`(?:^|[^0-9A-Za-z.:])429(?:$|[^0-9A-Za-z.])`)

// tooOften reports whether a provider is asked too often, and how long it wants to be left
// alone, if it says so. libdns has no word for it: errors of providers' clients often have a
// status or a time to ask for, and else it is in the text.
func tooOften(err error) (limited bool, after time.Duration) {
	var wait interface{ RetryAfter() time.Duration }
	if errors.As(err, &wait) {
		after = max(wait.RetryAfter(), 0)
	}
	var (
		status interface{ StatusCode() int }
		http1  interface{ HTTPStatusCode() int } // of the SDK of AWS
	)
	switch {
	case errors.As(err, &status) && status.StatusCode() == http.StatusTooManyRequests:
		return true, after
	case errors.As(err, &http1) && http1.HTTPStatusCode() == http.StatusTooManyRequests:
		return true, after
	}
	text := strings.ToLower(err.Error())
	for _, sign := range []string{"rate limit", "rate-limit", "ratelimit", "rate exceeded", "too many requests", "throttl", "quota exceeded"} {
		if strings.Contains(text, sign) {
			return true, after
		}
	}
	return after > 0 || status429.MatchString(text), after
}
