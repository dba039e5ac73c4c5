// Package ca has conversations with a CA: its directory, what it offers, and requests that are made
// again after a hiccup, each as often and as late as the CA asks.
//
// acmez speaks the protocol, but it would send a request three times within half a second to a CA that
// is overloaded, keep a directory for twelve hours, and drop Retry-After and the members of a challenge
// that it does not know. So two http.RoundTrippers are between it and the network: the wire, which sees
// each answer, and the door, which bounds and cleans what comes from outside. Refusals of a CA that hold
// for hours are remembered in storage: that it does not offer the challenge, and its limits. Without
// that each name, and each restart, would have to be refused to learn of them.
package ca

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
	"github.com/dnspersist/caddy-dnspersist/internal/walltime"
)

// requestTimeout bounds one HTTP request, reading the answer included.
const requestTimeout = 30 * time.Second

// Config is what conversations with a CA need to know.
type Config struct {
	// URL is that of the directory.
	URL string
	// Store keeps what is learned of the CA.
	Store  state.Store
	Logger *zap.Logger
	// Transport carries the requests, UserAgent is put before acmez's own.
	Transport http.RoundTripper
	UserAgent string
	// Lanes learn from all requests how many the CA bears; nil for nobody.
	Lanes *Lanes
	// Dialect and IssuerDomainName are what the operator has chosen for records; the dialect is
	// one of the Dialect constants.
	Dialect, IssuerDomainName string
	// LongestWait is the longest that one request waits for because the CA asks for it: one that
	// asks for more gets it between attempts. Default: two minutes.
	LongestWait time.Duration
	// NotOfferedRetry and NotOfferedRenewalRetry are how long a CA is believed that does not offer
	// the challenge, for first certificates and for renewals.
	NotOfferedRetry, NotOfferedRenewalRetry time.Duration
	// Private says that the CA is the operator's own, see Client.Interval.
	Private bool
}

// Server is a CA with what is remembered of it between conversations: its directory, and what it
// has offered.
type Server struct {
	Config

	dirs   directories
	nonces nonces
	// updating is held while ca.json is changed.
	updating sync.Mutex

	mu       sync.Mutex
	offer    *Offer
	unlisted string // what was last logged of a configured issuer domain name
}

// New returns the CA of a configuration, with defaults for what is zero.
func New(cfg Config) *Server {
	cfg.Transport = Guard(cfg.Transport, cfg.URL)
	cfg.Logger = cmp.Or(cfg.Logger, zap.NewNop())
	cfg.UserAgent = cmp.Or(cfg.UserAgent, "caddy-dnspersist")
	cfg.Dialect = cmp.Or(cfg.Dialect, DialectAuto)
	cfg.LongestWait = cmp.Or(cfg.LongestWait, maxRetryWait)
	return &Server{Config: cfg}
}

// Client is one conversation with a CA: an ACME client of its own, so that the wire knows whose
// answers it sees, over shared connections. It serves one operation at a time.
type Client struct {
	// Directory is the CA's, ACME what sends requests to it: within Do, DoUpTo or Once.
	Directory *Directory
	ACME      *acme.Client

	server *Server
	wire   *wire
	logger *zap.Logger
	// RolledAt is when the key that signs was last changed.
	RolledAt time.Time
	// PersistUntil is until when the steps of an attempt that has a certificate to lose are
	// repeated, whatever goes wrong; zero before.
	PersistUntil time.Time
	// LockName is the name under which CertMagic holds its lock then, leased when the lock's lease
	// was last extended.
	LockName string
	leased   time.Time
}

// Open fetches the directory if need be and makes a client.
func (srv *Server) Open(ctx context.Context) (*Client, error) {
	dir, err := srv.fetch(ctx)
	if err != nil {
		return nil, err
	}
	return srv.At(dir), nil
}

// fetch returns the directory.
func (srv *Server) fetch(ctx context.Context) (*Directory, error) {
	return srv.dirs.get(ctx, srv.URL, srv.Transport, srv.UserAgent)
}

// Ask asks the CA for its directory once, and keeps nothing of it: the error is why it does not answer now.
func (srv *Server) Ask(ctx context.Context) error {
	return srv.dirs.ask(ctx, srv.URL, srv.Transport, srv.UserAgent)
}

// Expire makes the next conversation read the directory anew, unless the CA has asked to be left alone.
func (srv *Server) Expire() { srv.dirs.expire() }

// At makes a client for a directory that is there.
func (srv *Server) At(dir *Directory) *Client {
	w := &wire{base: srv.Transport, directory: dir, spare: &srv.nonces, server: srv}
	return &Client{
		server:    srv,
		Directory: dir,
		wire:      w,
		logger:    srv.Logger,
		leased:    time.Now(),
		ACME: &acme.Client{
			Directory: dir.URL + "#" + dir.fragment(),
			HTTPClient: &http.Client{
				Transport: w,
				Timeout:   requestTimeout,
				// an account URL that redirects is somebody else's (-02 section 9.4)
				CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
			},
			UserAgent: srv.UserAgent,
			// the intervals are ours, see interval
			PollTimeout: time.Nanosecond,
		},
	}
}

// Close ends the conversation, which is not gone on with. It need not be called.
func (c *Client) Close() {
	c.wire.mu.Lock()
	nonce := c.wire.nonce
	c.wire.nonce = ""
	c.wire.mu.Unlock()
	c.server.nonces.put(nonce)
}

// Again makes another conversation with the same CA.
func (c *Client) Again() *Client { return c.server.At(c.Directory) }

const (
	// MinInterval is the shortest time between two requests for the same thing at a public CA,
	// whatever its Retry-After is, and after a hiccup at any.
	MinInterval = time.Second
	// privateInterval is the shortest at a private CA that is at work on it, mostInterval the longest
	// at any.
	privateInterval, mostInterval = 20 * time.Millisecond, 10 * time.Second
	// MaxInlineWait is the longest wait inside one attempt where somebody else takes the
	// name over: a longer one would hold CertMagic's job and lock for nothing. A CA that asks
	// for more gets it between attempts.
	MaxInlineWait = 10 * time.Second
	// maxRetryWait is the longest wait inside one attempt where nobody does.
	maxRetryWait = 2 * time.Minute
	// maxBackoff is the longest wait between two tries of an attempt that has a certificate
	// to lose.
	maxBackoff = 4 * time.Minute
	// MaxRetries is how often a step is tried again after a hiccup.
	MaxRetries = 6
	// RolledLately is how long after a change of key its refusal may pass: frontends of a CA
	// keep what they know of an account for some seconds. rolledPatience is how long one is
	// asked again.
	RolledLately, rolledPatience = time.Minute, 10 * time.Second
)

// StepOrder is the step, see Do, in which orders are made.
const StepOrder = "making the order"

// Once runs fn, one exchange with the CA that is not repeated. It returns the status of the answer,
// 0 if there was none, and how long the CA asks to wait.
func (c *Client) Once(step string, fn func() error) (status int, wait time.Duration, err error) {
	c.wire.reset(step)
	err = fn()
	status, wait, _ = c.wire.last()
	return status, wait, err
}

// HasAnswered reports whether the CA has answered anything in this conversation that was not about its own
// trouble.
func (c *Client) HasAnswered() bool {
	c.wire.mu.Lock()
	defer c.wire.mu.Unlock()
	return c.wire.answered
}

// IsBusy reports whether the CA's last answer is not about what it was asked: it is overloaded or
// broken.
func (c *Client) IsBusy() bool {
	status, _, _ := c.wire.last()
	return status >= 500 || status == http.StatusTooManyRequests
}

// Do runs fn, one exchange with the CA, and again after a hiccup that may
// pass: a lost connection, a 5xx, a 429, a nonce that did not come through. It
// obeys Retry-After. name is what is being done, for errors and logs.
func (c *Client) Do(ctx context.Context, name string, fn func() error) error {
	return c.DoUpTo(ctx, name, MaxRetries, fn)
}

// DoUpTo is Do with fewer repetitions.
func (c *Client) DoUpTo(ctx context.Context, name string, retries int, fn func() error) error {
	began := time.Now()
	for attempt := 0; ; attempt++ {
		c.wire.reset(name)
		err := fn()
		if err == nil {
			return nil
		}
		if unusable := c.wire.refused(); unusable != nil {
			return fmt.Errorf("%s: %w", name, unusable)
		}
		status, _, _ := c.wire.last()
		if ctx.Err() != nil {
			return fmt.Errorf("%s: %w", name, errors.Join(context.Cause(ctx), err))
		}
		wait, again := c.pause(err, attempt)
		persist := time.Now().Add(wait).Before(c.PersistUntil)
		switch {
		case c.passesAfterRollover(err, began):
			wait = MinInterval
		case again && !persist && c.IsLimited(err, wait, attempt):
			return fmt.Errorf("%s: %w", name, c.RateLimit(err, wait))
		case !again:
			return fmt.Errorf("%s: %w", name, err)
		case attempt >= retries && !persist:
			return &DownError{CA: c.server.URL, Err: fmt.Errorf("%s: %w", name, err)}
		}
		c.logger.Warn("ACME request failed; trying again",
			zap.String("step", name),
			zap.Int("status", status),
			zap.Int("attempt", attempt+1),
			zap.Duration("wait", wait),
			zap.Error(err))
		if err := c.Rest(ctx, wait); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
}

// pause returns how long to wait after err, and whether trying again can help.
func (c *Client) pause(err error, attempt int) (time.Duration, bool) {
	status, retryAfter, has := c.wire.last()
	backoff := MinInterval << min(attempt, 4)
	if !c.PersistUntil.IsZero() {
		backoff = min(MinInterval<<min(attempt, 8), maxBackoff)
	}
	var problem acme.Problem
	switch {
	case !c.wire.asked():
		return 0, false // acmez refuses what it was given
	case has && (status >= 500 || status == http.StatusTooManyRequests):
		return max(retryAfter, MinInterval), true
	case status >= 500:
		return backoff, true
	case status == http.StatusTooManyRequests:
		// without a time this is a limit that does not pass in seconds
		return 5 * backoff, true
	case IsProblem(err, "badNonce"):
		return MinInterval, true
	case errors.As(err, &problem):
		return 0, false
	case status >= 400:
		return 0, false
	default:
		// no answer, or one that was cut off
		return backoff, true
	}
}

// IsLimited reports whether the CA asks for more time than an attempt can wait.
func (c *Client) IsLimited(err error, wait time.Duration, attempt int) bool {
	status, _, has := c.wire.last()
	switch {
	case status < 500 && status != http.StatusTooManyRequests:
		return false
	case !has:
		// the first 429 without a time may be a hiccup, but not where somebody has to act
		return status == http.StatusTooManyRequests && (attempt > 0 || pageOf(err) != "")
	}
	return wait > c.server.LongestWait
}

// passesAfterRollover reports whether a signature was refused that some seconds after the
// change of the account's key will be accepted: the step began at the given time.
func (c *Client) passesAfterRollover(err error, began time.Time) bool {
	status, _, _ := c.wire.last()
	return IsProblem(err, "malformed") && status != http.StatusNotFound &&
		walltime.Since(c.RolledAt).Abs() < RolledLately && time.Since(began) < rolledPatience
}

// Rest is Sleep, with the lease of CertMagic's lock extended where the wait may be long.
func (c *Client) Rest(ctx context.Context, d time.Duration) error {
	for ; d > leaseEvery && c.LockName != ""; d -= leaseEvery {
		if err := Sleep(ctx, leaseEvery); err != nil {
			return err
		}
		c.KeepLock(ctx, c.LockName)
	}
	return Sleep(ctx, d)
}

// Sleep waits for d or until ctx ends, and then returns why.
func Sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Interval is the time until the next look at something that the CA is at work on, after so many that have
// come too early: the CA's Retry-After if it sent one of a second or more. Else a public CA is asked again after
// one second, two and so on, and a private one, which is often ready at once, after 20 ms and then intervals that keep
// a certificate waiting for half as long again as the CA took.
func (c *Client) Interval(looks int) time.Duration {
	_, wait, _ := c.wire.last()
	if wait >= MinInterval {
		return min(wait, maxRetryWait)
	}
	first, growth := MinInterval, 2.0
	if c.server.Private {
		first, growth, looks = privateInterval, 1.5, max(looks-2, 0)
	}
	return time.Duration(min(float64(first)*math.Pow(growth, float64(looks)), float64(mostInterval)))
}

const (
	// leaseEvery is how often the lease of CertMagic's lock is extended while an
	// attempt waits, leaseFor by how much: on a first attempt it is only a minute long.
	leaseEvery = 20 * time.Second
	leaseFor   = 2 * time.Minute
)

// KeepLock extends the lease of the lock that CertMagic holds for a name while it
// waits for us, where the storage gives out leases: else another node would begin the
// same work.
func (c *Client) KeepLock(ctx context.Context, name string) {
	renewer, ok := c.server.Store.Storage.(certmagic.LockLeaseRenewer)
	if !ok || time.Since(c.leased) < leaseEvery {
		return
	}
	c.leased = time.Now()
	if err := renewer.RenewLockLease(ctx, "issue_cert_"+name, leaseFor); err != nil {
		c.logger.Warn("extending the lock's lease failed; another node may begin the same work",
			zap.String("domain", name), zap.Error(err))
	}
}

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
