package ca

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/foreign"
)

// wire is the http.RoundTripper below acmez. It notes what acmez does not pass
// on: Retry-After, the status before any retry, the members of a challenge that
// acmez does not know; and it answers for the directory, which acmez would keep
// for twelve hours for the whole process. A wire serves one operation at a time.
type wire struct {
	base      http.RoundTripper
	directory *Directory
	spare     *nonces // from other conversations; may be nil
	server    *Server

	mu         sync.Mutex
	nonce      string // the last that came, unless it is used
	step       string // what is being done
	sent       int    // requests since reset
	status     int
	retryAfter time.Duration
	hasRetry   bool
	answered   bool  // something that was not about the CA's own trouble, since the beginning
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
	isHead := req.Method == http.MethodHead
	if isHead && req.URL.String() == w.directory.NewNonce {
		if nonce := w.spare.take(); nonce != "" {
			return &http.Response{
				Status: "200 OK", StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
				Header: http.Header{"Replay-Nonce": {nonce}}, Body: http.NoBody, Request: req,
			}, nil
		}
	}
	w.mu.Lock()
	w.sent++
	if req.Method == http.MethodPost {
		w.nonce = ""
	}
	step := w.step
	w.mu.Unlock()
	resp, err := w.server.observe(w.base, req, step)
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
	if nonce := resp.Header.Get("Replay-Nonce"); nonce != "" && !isHead { // that one is used at once
		w.nonce = nonce
	}
	w.answered = w.answered || resp.StatusCode < 500 && resp.StatusCode != http.StatusTooManyRequests
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

// nonces are anti-replay nonces (RFC 8555 section 6.5) that are left over when conversations end: the next one need not
// ask for its first.
type nonces struct {
	mu   sync.Mutex
	free []nonce // in the order in which they came
}

// nonce is one, and when it came.
type nonce struct {
	value string
	at    time.Time
}

const (
	// nonceFresh is how long one is used: a CA that has forgotten it refuses, and acmez waits before it asks again.
	nonceFresh = 15 * time.Second
	// noncesKept is as many as conversations end in that time at a busy CA.
	noncesKept = 64
)

func (n *nonces) put(value string) {
	if value == "" {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.free) == noncesKept {
		n.free = append(n.free[:0], n.free[1:]...)
	}
	n.free = append(n.free, nonce{value, time.Now()})
}

// take returns the latest, empty if there is none that is fresh.
func (n *nonces) take() string {
	if n == nil {
		return ""
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.free) == 0 {
		return ""
	}
	last := n.free[len(n.free)-1]
	n.free = n.free[:len(n.free)-1]
	if time.Since(last.at) > nonceFresh {
		n.free = nil // the others are older
		return ""
	}
	return last.value
}

// observe makes a request, and has the width of the lanes to the CA judged by what becomes of it. A request for a nonce
// is not observed, for it is a matter of the CA's frontends.
func (srv *Server) observe(base http.RoundTripper, req *http.Request, step string) (*http.Response, error) {
	if srv == nil || srv.Lanes == nil || req.Method != http.MethodPost {
		return base.RoundTrip(req)
	}
	sent := time.Now()
	srv.Lanes.asked(srv.URL, sent)
	resp, err := base.RoundTrip(req)
	outcome := requestAnswered
	switch {
	case errors.Is(req.Context().Err(), context.Canceled):
		outcome = requestDropped
	case err != nil && !isUnusable(err), resp != nil && resp.StatusCode >= 500:
		outcome = requestFailed
	case resp != nil && resp.StatusCode == http.StatusTooManyRequests && step != StepOrder:
		outcome = requestFailed // to an order it is a limit of the name, or of the account
	}
	if lanes, why := srv.Lanes.answered(srv.URL, step, sent, outcome); why != "" {
		srv.Logger.Debug("fewer lanes to the CA", zap.String("ca", srv.URL), zap.Int("lanes", lanes), zap.String("reason", why))
	}
	return resp, err
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
	if !bytes.Contains(body, []byte(ChallengeType)) { // what comes through a door has it without escapes
		return
	}
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

// reset forgets the last answer, for the requests of a step.
func (w *wire) reset(step string) {
	w.mu.Lock()
	w.step = step
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

// door is the http.RoundTripper through which all answers of a CA come in. It bounds the
// answers, makes their texts fit for messages, and lets a CA that is asked over https name no
// URL that is not.
type door struct {
	base http.RoundTripper
	// ca is the URL of the directory.
	ca string
}

// Guard returns what goes through a door to the CA with the given directory URL. Default: a
// transport of this package.
func Guard(base http.RoundTripper, ca string) http.RoundTripper {
	return door{cmp.Or(base, http.RoundTripper(defaultTransport)), ca}
}

const (
	// maxAnswer bounds an answer's body: a certificate chain has some kilobytes.
	maxAnswer = 1 << 20
	// maxMember bounds a string in it: a URL has some hundred octets.
	maxMember = 4096
)

// unusableError is an answer of the CA that cannot be used. Asking again does not help.
type unusableError struct{ text string }

func (e *unusableError) Error() string { return e.text }

// isUnusable reports whether the CA's answer could not be used.
func isUnusable(err error) bool {
	var unusable *unusableError
	return errors.As(err, &unusable)
}

// RoundTrip implements http.RoundTripper.
func (d door) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := CheckEncrypted(d.ca, req.URL.String()); err != nil {
		return nil, err
	}
	resp, err := d.base.RoundTrip(req)
	if err != nil {
		return resp, foreign.Error(err)
	}
	resp.Status = foreign.Text(resp.Status)
	for _, values := range resp.Header {
		for i, v := range values {
			values[i] = foreign.Cut(v, maxMember)
		}
	}
	if err := CheckEncrypted(d.ca, resp.Header.Get("Location")); err != nil {
		_ = resp.Body.Close()
		return nil, err
	}
	if req.Method == http.MethodHead {
		return resp, nil
	}
	if err := readAnswer(req, resp); err != nil {
		return nil, err
	}
	return resp, nil
}

// readAnswer puts the body in memory, in a form that cannot do harm. A body that was cut off
// stays one.
func readAnswer(req *http.Request, resp *http.Response) error {
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	_ = resp.Body.Close()
	failed := resp.StatusCode >= 400
	switch {
	case len(body) > maxAnswer && !failed:
		return &unusableError{fmt.Sprintf("the CA's answer to %s has more than %d octets: no ACME answer is that long", foreign.Text(req.URL.Redacted()), maxAnswer)}
	case len(body) > maxAnswer:
		body = fmt.Appendf(nil, "an answer of more than %d octets, which begins with %s", maxAnswer, body[:maxMember])
		resp.Header.Del("Content-Type")
	case err != nil:
		// what the CA did is not known, and the same error must reach acmez as if it had read
		// the body itself
		resp.Body = io.NopCloser(io.MultiReader(bytes.NewReader(body), failingReader{foreign.Error(err)}))
		return nil
	}
	kind, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
	kind = strings.ToLower(strings.TrimSpace(kind))
	isProblem := failed && kind == "application/problem+json"
	if !failed && kind == "application/json" && isPlain(body) {
		setBody(resp, kind, body)
		return nil
	}
	switch clean, ok := cleanJSON(body, isProblem); {
	case isProblem && ok, !failed && kind == "application/json" && ok:
		body = clean
	case failed:
		body, kind = []byte(foreign.Text(string(body))), "text/plain"
	}
	setBody(resp, kind, body)
	return nil
}

// setBody gives an answer its body, which acmez is to take for what it was taken for here.
func setBody(resp *http.Response, kind string, body []byte) {
	resp.Header.Set("Content-Type", kind)
	resp.Header.Del("Content-Length")
	resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
}

type failingReader struct{ err error }

func (f failingReader) Read([]byte) (int, error) { return 0, f.err }

// CheckEncrypted refuses a URL that is not encrypted at a CA that is: whoever listens there
// could learn of the account, and whoever is between could change each answer.
func CheckEncrypted(ca, target string) error {
	from, err := url.Parse(ca)
	if err != nil || !strings.EqualFold(from.Scheme, "https") {
		return nil //nolint:nilerr // it fails where it is asked
	}
	to, err := url.Parse(target)
	if err != nil || to.Scheme == "" || strings.EqualFold(to.Scheme, "https") {
		return nil //nolint:nilerr // a request to it fails
	}
	return &unusableError{fmt.Sprintf("the CA %s leads to %s, which is not encrypted: an ACME account is used over https only (RFC 8555 section 6.1); "+
		"this is for the CA's operator to correct, often it lacks a setting for the proxy in front of it", ca, foreign.Text(to.Redacted()))}
}

// isPlain reports whether body is JSON of which cleanJSON would change nothing: it is ASCII without escapes, no
// string is long, and none is the name of a problem. Nearly all answers are like that, and are not written anew.
func isPlain(body []byte) bool {
	begin := -1 // of the string that i is in
	for i, c := range body {
		switch {
		case c == '\\' || c >= 0x7f:
			return false
		case c != '"':
		case begin < 0:
			begin = i + 1
		case i-begin > foreign.MaxText || strings.EqualFold(string(body[begin:i]), "error"):
			return false
		default:
			begin = -1
		}
	}
	return json.Valid(body)
}

// cleanJSON makes the strings of a JSON text fit for messages: those of problem documents, which
// it is itself or which are its members "error", are about as long as a message may be. ok is
// false if it is not JSON.
func cleanJSON(body []byte, isProblem bool) (clean []byte, ok bool) {
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber()
	var value any
	if decoder.Decode(&value) != nil || decoder.More() {
		return nil, false
	}
	if isProblem {
		value = cleanProblem(value)
	}
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	if encoder.Encode(cleanValue(value)) != nil {
		return nil, false
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n")), true
}

func cleanValue(value any) any {
	switch v := value.(type) {
	case string:
		return foreign.Cut(v, maxMember)
	case []any:
		for i := range v {
			v[i] = cleanValue(v[i])
		}
	case map[string]any:
		clean := make(map[string]any, len(v))
		for name, member := range v {
			if strings.EqualFold(name, "error") {
				member = cleanProblem(member)
			}
			clean[foreign.Text(name)] = cleanValue(member)
		}
		return clean
	}
	return value
}

// maxSubproblem bounds the texts of one subproblem.
const maxSubproblem = 200

// cleanProblem makes a problem document (RFC 8555 section 6.7) as long as a message may be. What
// is not such a document becomes one without details.
func cleanProblem(value any) any {
	data, err := json.Marshal(value)
	if err != nil || value == nil {
		return nil
	}
	var p acme.Problem
	if json.Unmarshal(data, &p) != nil {
		return map[string]any{"type": "about:blank", "detail": "a problem document that cannot be read: " + foreign.Cut(string(data), maxSubproblem)}
	}
	p.Type, p.Title = foreign.Cut(p.Type, maxSubproblem), foreign.Cut(p.Title, maxSubproblem)
	p.Detail, p.Instance = foreign.Text(p.Detail), foreign.Cut(p.Instance, maxSubproblem)
	room := foreign.MaxText - len(p.Detail)
	for i := range p.Subproblems {
		sub := &p.Subproblems[i]
		sub.Type, sub.Title = foreign.Cut(sub.Type, maxSubproblem), ""
		sub.Detail, sub.Instance, sub.Subproblems = foreign.Cut(sub.Detail, maxSubproblem), "", nil
		sub.Identifier.Type, sub.Identifier.Value = foreign.Cut(sub.Identifier.Type, maxSubproblem), foreign.Cut(sub.Identifier.Value, 2*maxSubproblem)
		if room -= len(sub.Type) + len(sub.Detail) + len(sub.Identifier.Value); room < 0 && i > 0 {
			p.Detail += fmt.Sprintf(" (and %d more problems)", len(p.Subproblems)-i)
			p.Subproblems = p.Subproblems[:i]
			break
		}
	}
	return p
}

// idleConnections is how many connections to a CA without HTTP/2 are kept: as many as are likely in use at once, for
// to shake hands costs more than all else about a request.
const idleConnections = 128

// NewTransport returns what carries requests to a CA: a connection that goes silent is given up
// after half a minute. An HTTP/2 client goes on using it otherwise, and no request comes through
// for as long as it takes the kernel to give up, a quarter of an hour or for ever.
func NewTransport() *http.Transport {
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: requestTimeout, KeepAlive: 30 * time.Second}).DialContext,
		TLSHandshakeTimeout:    requestTimeout,
		ResponseHeaderTimeout:  requestTimeout,
		IdleConnTimeout:        90 * time.Second,
		MaxIdleConnsPerHost:    idleConnections,
		MaxResponseHeaderBytes: 256 << 10,
		ForceAttemptHTTP2:      true,
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 15 * time.Second},
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, ClientSessionCache: tls.NewLRUClientSessionCache(0)},
	}
}

var defaultTransport = NewTransport()
