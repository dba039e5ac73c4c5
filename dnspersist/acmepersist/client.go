package acmepersist

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

// ServerConfig is what conversations with a CA need to know.
type ServerConfig struct {
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
	// the challenge, for first certificates and for renewals. Defaults: a day, and an hour.
	NotOfferedRetry, NotOfferedRenewalRetry time.Duration
}

// Server is a CA with what is remembered of it between conversations: its directory, and what it
// has offered.
type Server struct {
	ServerConfig

	dirs directories
	// updating is held while ca.json is changed.
	updating sync.Mutex

	mu       sync.Mutex
	offer    *offer
	unlisted string // what was last logged of a configured issuer domain name
}

// NewServer returns the CA of a configuration, with defaults for what is zero.
func NewServer(cfg ServerConfig) *Server {
	cfg.Transport = guarded(cfg.Transport, cfg.URL)
	cfg.Logger = cmp.Or(cfg.Logger, zap.NewNop())
	cfg.UserAgent = cmp.Or(cfg.UserAgent, "caddy-dnspersist")
	cfg.Dialect = cmp.Or(cfg.Dialect, DialectAuto)
	cfg.LongestWait = cmp.Or(cfg.LongestWait, maxRetryWait)
	cfg.NotOfferedRetry = cmp.Or(cfg.NotOfferedRetry, notOfferedRetry)
	cfg.NotOfferedRenewalRetry = cmp.Or(cfg.NotOfferedRenewalRetry, notOfferedRenewalRetry)
	return &Server{ServerConfig: cfg}
}

// Client is one conversation with a CA: an ACME client of its own, so that the wire knows whose
// answers it sees, over shared connections. It serves one operation at a time.
type Client struct {
	server    *Server
	directory *directory
	wire      *wire
	client    *acme.Client
	logger    *zap.Logger
	// rolledAt is when the key that signs was last changed.
	rolledAt time.Time
	// persistUntil is until when the steps of an attempt that has a certificate to lose are
	// repeated, whatever goes wrong; zero before.
	persistUntil time.Time
	// lockName is the name under which CertMagic holds its lock then, leased when the lock's lease
	// was last extended.
	lockName string
	leased   time.Time
}

// open fetches the directory if need be and makes a client.
func (srv *Server) open(ctx context.Context) (*Client, error) {
	dir, err := srv.fetch(ctx)
	if err != nil {
		return nil, err
	}
	return srv.at(dir), nil
}

// fetch returns the directory.
func (srv *Server) fetch(ctx context.Context) (*directory, error) {
	return srv.dirs.get(ctx, srv.URL, srv.Transport, srv.UserAgent)
}

// at makes a client for a directory that is there.
func (srv *Server) at(dir *directory) *Client {
	w := &wire{base: srv.Transport, directory: dir}
	return &Client{
		server:    srv,
		directory: dir,
		wire:      w,
		logger:    srv.Logger,
		leased:    time.Now(),
		client: &acme.Client{
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

// again makes another conversation with the same CA.
func (c *Client) again() *Client { return c.server.at(c.directory) }
