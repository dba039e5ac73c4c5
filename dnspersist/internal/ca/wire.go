package ca

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// wire is the http.RoundTripper below acmez. It notes what acmez does not pass
// on: Retry-After, the status before any retry, the members of a challenge that
// acmez does not know; and it answers for the directory, which acmez would keep
// for twelve hours for the whole process. A wire serves one operation at a time.
type wire struct {
	base      http.RoundTripper
	directory *Directory

	mu         sync.Mutex
	sent       int // requests since reset
	status     int
	retryAfter time.Duration
	hasRetry   bool
	unusable   error // why the last answer could not be used
	// members are what acmez does not know of a challenge, by its URL.
	members map[string]challengeMembers
}

// RoundTrip implements http.RoundTripper.
func (w *wire) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Method == http.MethodGet && req.URL.Fragment == w.directory.fragment() &&
		strings.TrimSuffix(req.URL.String(), "#"+w.directory.fragment()) == w.directory.URL {
		return w.directory.response(req), nil
	}
	w.mu.Lock()
	w.sent++
	w.mu.Unlock()
	resp, err := w.base.RoundTrip(req)
	if isUnusable(err) {
		// acmez would send the same request again, with the same nonce, if it were given an
		// error: it gets an answer
		resp = refusal(req, err)
	} else if err != nil {
		return resp, err
	}
	retry, has := parseRetryAfter(resp.Header.Get("Retry-After"), time.Now())
	w.mu.Lock()
	w.status, w.retryAfter, w.hasRetry = resp.StatusCode, retry, has
	if isUnusable(err) {
		w.unusable = err
	}
	w.mu.Unlock()

	if resp.StatusCode >= 500 {
		// acmez sends the same request three times within half a second after a
		// 5xx; as a 4xx it comes back to us, and we wait as the CA asks.
		resp.StatusCode = http.StatusTooManyRequests
		return resp, nil
	}
	if strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json") && resp.StatusCode < 300 {
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil {
			// the answer was cut, and acmez has to see that as well
			resp.Body = io.NopCloser(io.MultiReader(bytes.NewReader(body), failingReader{err}))
			return resp, nil
		}
		w.note(body)
		resp.Body = io.NopCloser(bytes.NewReader(body))
	}
	return resp, nil
}

// refusal is an answer that acmez does not look into.
func refusal(req *http.Request, err error) *http.Response {
	return &http.Response{
		Status: "400 Bad Request", StatusCode: http.StatusBadRequest, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Content-Type": {"text/plain"}}, Body: io.NopCloser(strings.NewReader(err.Error())), Request: req,
	}
}

// note keeps the members of each dns-persist-01 challenge in an authorization.
func (w *wire) note(body []byte) {
	var authz struct {
		Challenges []challengeMembers `json:"challenges"`
	}
	if json.Unmarshal(body, &authz) != nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range authz.Challenges {
		if c.Type == ChallengeType {
			if w.members == nil {
				w.members = make(map[string]challengeMembers)
			}
			w.members[c.URL] = c
		}
	}
}

// challenge returns the members of the challenge with the given URL.
func (w *wire) challenge(url string) challengeMembers {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.members[url]
}

// reset forgets the last answer.
func (w *wire) reset() {
	w.mu.Lock()
	w.sent, w.status, w.retryAfter, w.hasRetry, w.unusable = 0, 0, 0, false, nil
	w.mu.Unlock()
}

// asked reports whether anything was asked of the CA since reset: if not, an error is acmez's.
func (w *wire) asked() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.sent > 0
}

// refused returns why an answer since the last reset could not be used; nil if all could.
func (w *wire) refused() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.unusable
}

// last returns the status of the last answer (0 if there was none) and its
// Retry-After.
func (w *wire) last() (status int, retryAfter time.Duration, has bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.status, w.retryAfter, w.hasRetry
}

// parseRetryAfter reads a Retry-After header (RFC 9110 section 10.2.3).
func parseRetryAfter(header string, now time.Time) (time.Duration, bool) {
	if header == "" {
		return 0, false
	}
	if seconds, err := strconv.ParseInt(header, 10, 32); err == nil {
		return time.Duration(max(seconds, 0)) * time.Second, true
	}
	at, err := http.ParseTime(header)
	if err != nil {
		return 0, false
	}
	return max(at.Sub(now), 0), true
}
