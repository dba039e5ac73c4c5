package publish

import (
	"errors"
	"slices"
	"strings"
	"time"
)

// Redact takes secrets out of a text, the longest first.
func Redact(text string, secrets []string) string {
	byLength := slices.SortedFunc(slices.Values(secrets), func(a, b string) int { return len(b) - len(a) })
	for _, s := range byLength {
		if s != "" {
			text = strings.ReplaceAll(text, s, "[redacted]")
		}
	}
	return text
}

// RedactError takes secrets out of an error. Of one that holds some no more is left than its
// text, what errors.Is says of it, and the status or the time to wait that a provider's client
// has put into it: whoever could unwrap it could print it.
func RedactError(err error, secrets []string) error {
	text := err.Error()
	clean := Redact(text, secrets)
	if clean == text {
		return err
	}
	return &redactedError{clean, err}
}

type redactedError struct {
	text string
	err  error
}

func (e *redactedError) Error() string { return e.text }

func (e *redactedError) Is(target error) bool { return errors.Is(e.err, target) }

// The interfaces by which it is found out that a provider is asked too often.
type (
	statusCode     = interface{ StatusCode() int }
	httpStatusCode = interface{ HTTPStatusCode() int }
	retryAfter     = interface{ RetryAfter() time.Duration }
)

func (e *redactedError) As(target any) bool {
	switch t := target.(type) {
	case *statusCode:
		var found statusCode
		if errors.As(e.err, &found) {
			*t = answer{status: found.StatusCode()}
			return true
		}
	case *httpStatusCode:
		var found httpStatusCode
		if errors.As(e.err, &found) {
			*t = answer{status: found.HTTPStatusCode()}
			return true
		}
	case *retryAfter:
		var found retryAfter
		if errors.As(e.err, &found) {
			*t = answer{wait: found.RetryAfter()}
			return true
		}
	}
	return false
}

// answer is what is left of a provider's error.
type answer struct {
	status int
	wait   time.Duration
}

func (a answer) StatusCode() int           { return a.status }
func (a answer) HTTPStatusCode() int       { return a.status }
func (a answer) RetryAfter() time.Duration { return a.wait }
