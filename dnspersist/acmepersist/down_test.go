package acmepersist

import (
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
)

// troubled is a CA of which one kind of request is answered with its own trouble.
type troubled struct {
	http.RoundTripper
	step                    string // the first part of the path; empty for all requests
	status                  int
	media, body, retryAfter string
}

func (c *troubled) RoundTrip(req *http.Request) (*http.Response, error) {
	step, _, _ := strings.Cut(strings.TrimPrefix(req.URL.Path, "/"), "/")
	if c.step != "" && step != c.step {
		return c.RoundTripper.RoundTrip(req)
	}
	resp := &http.Response{
		StatusCode: c.status, Status: strconv.Itoa(c.status), Request: req,
		Header: http.Header{"Content-Type": {c.media}}, Body: io.NopCloser(strings.NewReader(c.body)),
	}
	if req.Method == http.MethodHead {
		resp.Body = http.NoBody
	}
	if c.retryAfter != "" {
		resp.Header.Set("Retry-After", c.retryAfter)
	}
	return resp, nil
}

// isKnown wants the domain to wait for the CA.
func (c *troubled) isKnown(t *testing.T) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := newTrial(t, func(cfg *Config) { c.RoundTripper, cfg.Transport = cfg.Transport, c })
		r.dns.set(wwwName, wwwValue)
		wanted := []Reason{ReasonCADown}
		if c.status == http.StatusTooManyRequests && c.retryAfter == "" || c.retryAfter == "7200" {
			wanted = []Reason{ReasonRateLimited}
		}
		if c.step == "" {
			wanted = append(wanted, ReasonCADown) // of a directory a limit without a time is trouble like any other
		}
		var hold *Hold
		if err := r.fails(); !errors.As(err, &hold) || !slices.Contains(wanted, hold.Reason) {
			t.Errorf("step %q, %d, Retry-After %q, %s %q: it does not wait for the CA, for %v: %v", c.step, c.status, c.retryAfter, c.media, c.body, wanted, err)
		}
	})
}

// Whatever an answer about the CA's own trouble looks like, and whichever request it is an answer to, the domain waits
// for the CA, and nobody has to look at an error. A nonce is asked for by HEAD: its answer has no body at all.
func TestTroubleOfTheCAIsKnown(t *testing.T) {
	bodies := [][2]string{
		{"text/html", "<html>bad gateway</html>"},
		{"", ""},
		{"application/problem+json", ""},
		{"application/json", `{"error":"overloaded"}`},
		{"application/problem+json", `{"type":"urn:ietf:params:acme:error:serverInternal","detail":"out of order"}`},
	}
	for i, status := range []int{500, 502, 503, 504, 429} {
		for j, retryAfter := range []string{"", "1", "7200"} {
			for _, step := range []string{"nonce", "new-order"} {
				for _, b := range bodies {
					(&troubled{step: step, status: status, media: b[0], body: b[1], retryAfter: retryAfter}).isKnown(t)
				}
			}
			b := bodies[(i+j)%len(bodies)]
			for _, step := range []string{"", "new-account", "authz"} {
				(&troubled{step: step, status: status, media: b[0], body: b[1], retryAfter: retryAfter}).isKnown(t)
			}
		}
	}
	for _, step := range []string{"dir", "order"} {
		(&troubled{step: step, status: 503, media: "text/html", retryAfter: "1"}).isKnown(t)
	}
}
