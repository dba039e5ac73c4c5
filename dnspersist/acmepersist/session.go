package acmepersist

import (
	"cmp"
	"context"
	"time"

	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/ca"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

// session is one operation with a CA and the account.
type session struct {
	*ca.Client
	iss     *Issuer
	store   store
	account acme.Account
	// thumbprint is that of the account's key, earlierThumbprints of former keys.
	thumbprint         string
	earlierThumbprints []string
	logger             *zap.Logger
	// notAfter is the end of the certificate that the attempt is to renew, zero for a first one.
	notAfter time.Time
	// requestKey is that of the attempt's CSR, see keyOf.
	requestKey string
}

// newServer returns the CA as a configuration has it.
func newServer(cfg Config) *ca.Server {
	server := ca.Config{
		URL: cfg.CA, Store: state.New(cfg.Storage, cfg.CA), Logger: cfg.Logger, Transport: cfg.Transport, UserAgent: cfg.UserAgent,
		Dialect: cfg.Dialect, IssuerDomainName: cfg.IssuerDomainName,
		NotOfferedRetry: cfg.NotOfferedRetry, NotOfferedRenewalRetry: cfg.NotOfferedRenewalRetry,
	}
	server.Store.Logger = cfg.Logger
	if cfg.Parker != nil {
		server.LongestWait = ca.MaxInlineWait
	}
	return ca.New(server)
}

// open fetches the directory if need be. The account is not bound yet.
func (iss *Issuer) open(ctx context.Context) (*session, error) {
	client, err := iss.ca.Open(ctx)
	if err != nil {
		return nil, err
	}
	return iss.sessionWith(client), nil
}

// sessionWith makes a session of a conversation. Its account is not known:
// a job that holds the account's lock uses it, and names the account with each request.
func (iss *Issuer) sessionWith(client *ca.Client) *session {
	return &session{Client: client, iss: iss, store: iss.store(), logger: iss.logger()}
}

// offline is a session that reads and writes storage only.
func (iss *Issuer) offline() *session { return iss.sessionWith(nil) }

// openBound is open with the bound account.
func (iss *Issuer) openBound(ctx context.Context) (*session, error) {
	s, err := iss.open(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.bind(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// step is Client.Do with the account, whose key another process may have changed meanwhile.
func (s *session) step(ctx context.Context, name string, fn func() error) error {
	return s.heedChangedKey(ctx, s.Do(ctx, name, fn))
}

// stepUpTo is step with fewer repetitions.
func (s *session) stepUpTo(ctx context.Context, name string, retries int, fn func() error) error {
	return s.heedChangedKey(ctx, s.DoUpTo(ctx, name, retries, fn))
}

// identity is what records name of the account.
func (s *session) identity() ca.Identity {
	return ca.Identity{
		URL: s.account.Location, URI: cmp.Or(s.iss.AccountURI, s.account.Location),
		Thumbprint: s.thumbprint, EarlierThumbprints: s.earlierThumbprints,
	}
}

// hashedWant is what the CA has to find for an identifier, in whichever dialect.
func (s *session) hashedWant(t ca.Terms, identifier string) record.Want {
	return t.Want(identifier, s.identity())
}
