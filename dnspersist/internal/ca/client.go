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
	"net/http"
	"sync"
	"time"

	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
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
	// Dialect and IssuerDomainName are what the operator has chosen for records; the dialect is
	// one of the Dialect constants.
	Dialect, IssuerDomainName string
	// LongestWait is the longest that one request waits for because the CA asks for it: one that
	// asks for more gets it between attempts. Default: two minutes.
	LongestWait time.Duration
	// NotOfferedRetry and NotOfferedRenewalRetry are how long a CA is believed that does not offer
	// the challenge, for first certificates and for renewals.
	NotOfferedRetry, NotOfferedRenewalRetry time.Duration
}

// Server is a CA with what is remembered of it between conversations: its directory, and what it
// has offered.
type Server struct {
	Config

	dirs directories
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

// Expire makes the next conversation read the directory anew, unless the CA has asked to be left alone.
func (srv *Server) Expire() { srv.dirs.expire() }

// At makes a client for a directory that is there.
func (srv *Server) At(dir *Directory) *Client {
	w := &wire{base: srv.Transport, directory: dir}
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

// Again makes another conversation with the same CA.
func (c *Client) Again() *Client { return c.server.At(c.Directory) }
