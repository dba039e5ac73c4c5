package acmepersist

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/publish"
)

type statusError int

func (e statusError) Error() string   { return "no" }
func (e statusError) StatusCode() int { return int(e) }

type awsError int

func (e awsError) Error() string       { return "no" }
func (e awsError) HTTPStatusCode() int { return int(e) }

type waitError time.Duration

func (e waitError) Error() string             { return "busy" }
func (e waitError) RetryAfter() time.Duration { return time.Duration(e) }

func TestTooOften(t *testing.T) {
	for _, c := range []struct {
		err     error
		limited bool
		after   time.Duration
	}{
		{statusError(429), true, 0},
		{statusError(500), false, 0},
		{fmt.Errorf("adding: %w", awsError(429)), true, 0},
		{awsError(400), false, 0},
		{fmt.Errorf("adding: %w", waitError(time.Minute)), true, time.Minute},
		{waitError(0), false, 0},
		{publish.RedactError(fmt.Errorf("key hush: %w", statusError(429)), []string{"hush"}), true, 0},
		{publish.RedactError(fmt.Errorf("key hush: %w", waitError(time.Minute)), []string{"hush"}), true, time.Minute},
		{publish.RedactError(fmt.Errorf("key hush: %w", awsError(400)), []string{"hush"}), false, 0},
		{errors.New("HTTP 429"), true, 0},
		{errors.New("got error status: HTTP 429: [Code:971]"), true, 0},
		{errors.New("status code 429, try later"), true, 0},
		{errors.New("Throttling: Rate exceeded"), true, 0},
		{errors.New("Too Many Requests"), true, 0},
		{errors.New("zone 429.example has no SOA record"), false, 0},
		{errors.New("dial tcp 192.0.2.1:429: connection refused"), false, 0},
		{errors.New("serial 2026429001"), false, 0},
		{errors.New("record 4291 not found"), false, 0},
	} {
		if limited, after := tooOften(c.err); limited != c.limited || after != c.after {
			t.Errorf("%v: %v, %s", c.err, limited, after)
		}
	}
}
