package acmepersist

import (
	"cmp"
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/account"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/ca"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/publish"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/site"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
)

// session is one operation with a CA and the account.
type session struct {
	*ca.Client
	iss     *Issuer
	store   state.Store
	account *account.Book
	logger  *zap.Logger
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
		LongestWait:            ca.MaxInlineWait,
		NotOfferedRetry:        cmp.Or(cfg.NotOfferedRetry, notOfferedRetry),
		NotOfferedRenewalRetry: cmp.Or(cfg.NotOfferedRenewalRetry, notOfferedRenewalRetry),
	}
	server.Store.Logger = cfg.Logger
	return ca.New(server)
}

// newHolder returns the account as a configuration has it.
func newHolder(cfg Config, server *ca.Server) *account.Holder {
	return account.New(account.Config{
		CA: server, Email: cfg.Email, PinnedKeyPEM: cfg.AccountKeyPEM, PinnedURL: cfg.AccountURL, PinnedURI: cfg.AccountURI,
		External: cfg.ExternalAccount, Reload: cfg.ReloadAccount,
	})
}

// open fetches the directory if need be. The account is not bound yet.
func (iss *Issuer) open(ctx context.Context) (*session, error) {
	client, err := iss.ca.Open(ctx)
	if err != nil {
		return nil, err
	}
	return iss.sessionWith(client), nil
}

// sessionWith makes a session of a conversation. Its account is not bound yet.
func (iss *Issuer) sessionWith(client *ca.Client) *session {
	return &session{Client: client, iss: iss, store: iss.ca.Store, account: iss.accounts.Book(client), logger: iss.ca.Logger}
}

// siteSession is a Site, and the session that acts upon it.
type siteSession struct {
	*session
	*site.Site
}

// maker makes sites for an account.
func (s *session) maker(who ca.Identity) *site.Maker {
	iss := s.iss
	return &site.Maker{
		CA: iss.CA, Account: who, Policy: iss.Policy, Wildcard: iss.Wildcard, AutoDialect: iss.ca.Dialect == ca.DialectAuto,
		Delegation: iss.Delegation, Publishes: iss.Publishing != nil && iss.Publishing.Mode != PublishNever, OnDemand: iss.OnDemand, Store: s.store,
		Keeper: func(checker *propagation.Checker) *publish.Keeper { return s.keeper(nil, checker) },
	}
}

// site works out what a CA has to find for an identifier.
func (s *session) site(ctx context.Context, identifier string, t ca.Terms) (*siteSession, error) {
	w, err := s.maker(s.account.Identity).Site(ctx, identifier, t)
	if err != nil {
		return nil, err
	}
	return &siteSession{s, w}, nil
}

// clone is a site that can be changed by itself.
func (w *siteSession) clone() *siteSession {
	copied := *w.Site
	return &siteSession{w.session, &copied}
}
