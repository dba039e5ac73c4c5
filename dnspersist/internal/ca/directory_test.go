package ca

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// directoryServer answers as a CA whose directory is asked for.
type directoryServer struct {
	hits, status int
	retryAfter   string
}

func (s *directoryServer) RoundTrip(r *http.Request) (*http.Response, error) {
	s.hits++
	time.Sleep(time.Second)
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	return &http.Response{
		StatusCode: s.status, Header: http.Header{"Retry-After": {s.retryAfter}},
		Body: io.NopCloser(strings.NewReader(`{"newNonce":"https://ca/n","newAccount":"https://ca/a","newOrder":"https://ca/o"}`)),
	}, nil
}

// together asks for the directory several times at once, and returns what came of each.
func together(ctx context.Context, c *directories, ca *directoryServer) []error {
	const callers = 5
	results := make(chan error)
	for range callers {
		go func() {
			_, err := c.get(ctx, "https://ca/dir", ca, "test")
			results <- err
		}()
	}
	var all []error
	for range callers {
		all = append(all, <-results)
	}
	return all
}

// A CA that asks for an hour of silence gets it from all who wait and who come later.
func TestDirectoryHeedsRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c directories
		ca := &directoryServer{status: http.StatusTooManyRequests, retryAfter: "3600"}
		for range 2 {
			for _, err := range together(t.Context(), &c, ca) {
				if !IsRateLimited(err) {
					t.Errorf("the error is %v, want one that puts off", err)
				}
			}
		}
		c.expire()
		_ = together(t.Context(), &c, ca)
		if ca.hits != 1 {
			t.Errorf("the CA was asked %d times, want once", ca.hits)
		}
		time.Sleep(time.Hour)
		ca.status = http.StatusOK
		if err := errors.Join(together(t.Context(), &c, ca)...); err != nil || ca.hits != 2 {
			t.Errorf("an hour later: %v after %d requests", err, ca.hits)
		}

		// with an older copy at hand
		ca.status, ca.hits = http.StatusServiceUnavailable, 0
		c.expire()
		for range 5 {
			if err := errors.Join(together(t.Context(), &c, ca)...); err != nil {
				t.Error(err)
			}
			time.Sleep(2 * time.Minute)
			c.expire()
		}
		if ca.hits != 1 {
			t.Errorf("with an older copy the CA was asked %d times, want once", ca.hits)
		}
	})
}

// Who waits for a fetch that fails does not repeat it; who comes later does. The end of the
// caller that fetches is not the others'.
func TestDirectoryFailsForThoseWhoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c directories
		ca := &directoryServer{status: http.StatusInternalServerError}
		for i := range 2 {
			for _, err := range together(t.Context(), &c, ca) {
				if err == nil || IsRateLimited(err) {
					t.Errorf("the error is %v", err)
				}
			}
			if want := (i + 1) * directoryAttempts; ca.hits != want {
				t.Errorf("the CA was asked %d times, want %d", ca.hits, want)
			}
		}
		ca.status = http.StatusOK
		short, cancel := context.WithTimeout(t.Context(), time.Second/2)
		defer cancel()
		first := make(chan error)
		go func() {
			_, err := c.get(short, "https://ca/dir", ca, "test")
			first <- err
		}()
		synctest.Wait()
		go func() { <-first }()
		if err := errors.Join(together(t.Context(), &c, ca)...); err != nil {
			t.Errorf("another caller's end came through: %v", err)
		}
	})
}
