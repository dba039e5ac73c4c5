package acmepersist

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/account"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/ca"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/publish"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/site"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
)

// What to do when the CA has lost the account.
const (
	// OnAccountLostFail stops with an error. It is the default.
	OnAccountLostFail = "fail"
	// OnAccountLostReplace registers another account, for private CAs that are reset.
	OnAccountLostReplace = "replace"
)

const (
	defaultPropagationTimeout = time.Minute
	// defaultTimeout is less than a day, after which CAs of public trust look at CAA
	// records again, and less than orders live there.
	defaultTimeout      = 12 * time.Hour
	defaultPollInterval = time.Second
	// defaultWindowRatio is CertMagic's part of a certificate's life that is its
	// renewal window.
	defaultWindowRatio = 1.0 / 3.0
)

// Config configures an Issuer.
type Config struct {
	// CA is the URL of the CA's directory. Required.
	CA string
	// Storage keeps the account, orders and certificates. Required.
	Storage certmagic.Storage
	// Logger is used for everything there is to say. Default: none.
	Logger *zap.Logger
	// Observer is told what happens. Default: none.
	Observer Observer
	// Transport carries the requests to the CA. Default: one by NewTransport.
	Transport http.RoundTripper
	// UserAgent is put before acmez's own. Default: caddy-dnspersist.
	UserAgent string

	// Email is the contact of an account that has to be registered, and chooses
	// which of `acme`'s accounts is adopted.
	Email string
	// AccountKeyPEM pins the account by its private key.
	AccountKeyPEM string
	// AccountURL pins the account: this one or none.
	AccountURL string
	// AccountURI is the accepted `accounturi` of the CA's challenges where it is
	// not the account URL.
	AccountURI string
	// OnAccountLost is OnAccountLostFail or OnAccountLostReplace.
	OnAccountLost string
	// ReloadAccount is how long the bound account is used without looking in storage
	// whether another process has changed it. Default: 10 seconds.
	ReloadAccount time.Duration
	// ExternalAccount is the external account binding, if the CA wants one.
	ExternalAccount *acme.EAB

	// Profile, PreferredChains and CertificateLifetime are what is asked of the CA.
	Profile             string
	PreferredChains     certmagic.ChainPreference
	CertificateLifetime time.Duration
	// PrivateCA says that the CA is the operator's own: it is asked 20 milliseconds later, and then ever later, what has become of a
	// validation or an order, and its resolvers are taken to keep nothing. Default: it is treated as a public one,
	// which is asked after a second, two, four and so on. Either may ask for more by Retry-After.
	PrivateCA bool
	// Timeout is how long the CA may take to validate. Default: 12 hours.
	Timeout time.Duration
	// InlineProcessing is how long of it one attempt waits, before the order is looked at again by a later
	// one. Default: 5 minutes.
	InlineProcessing time.Duration
	// Lanes bound what a CA works on at once, for all issuers that share them. Default: lanes of this issuer's own.
	Lanes *Lanes
	// MaxParallelOrders is the most orders that the CA works on at once. Default: 64.
	MaxParallelOrders int
	// InlineQueue is how long one attempt waits for its turn at the CA, before it ends with ReasonQueued. Default: 20 s.
	InlineQueue time.Duration
	// Window bounds the orders of the account, whatever Issuer that shares the lanes makes them; zero for no bound.
	Window OrderWindow

	// Policy is one of the Policy constants.
	Policy string
	// Dialect is "auto", which is the default, "account_url" or "hashed".
	Dialect string
	// IssuerDomainName is used in records, where the CA offers several.
	IssuerDomainName string
	// Checker looks for records; nil trusts the operator and asks the CA at once.
	Checker *propagation.Checker
	// CAAChecker looks for CAA records, and after a certificate for the end of the record, where there is
	// no Checker; nil for none.
	CAAChecker *propagation.Checker
	// Grace and Settle are those of the gate, see propagation.NewGate. Zero for
	// the defaults.
	Grace, Settle time.Duration
	// MinAskInterval is the shortest time between two attempts that a certificate which
	// runs out makes whatever DNS shows. Default: 1 minute.
	MinAskInterval time.Duration
	// CacheCap is the longest time for which the CA's resolvers keep an answer: a CA that
	// refused the published values is not asked again before. Default: a minute for Let's
	// Encrypt, 5 minutes for others, none for a PrivateCA; negative: none.
	CacheCap time.Duration
	// PropagationTimeout is how long one attempt waits once a server shows the
	// record. Default: 1 minute.
	PropagationTimeout time.Duration
	// PollInterval is the shortest time between two looks while an attempt
	// waits. Default: 1 second.
	PollInterval time.Duration

	// NoWait makes Issue never wait for DNS: where a TLS handshake hangs on it, or
	// where another issuer has its turn.
	NoWait bool
	// OnDemand says that a TLS handshake hangs on an attempt, unless InBackground says
	// otherwise.
	OnDemand bool
	// WritesPerHour bounds the records that are written on demand for the names of one registered
	// domain, MaxRecords the names with records of ours before none is written on demand any more.
	// Zero for no bound.
	WritesPerHour, MaxRecords int
	// RenewalWindowRatio is CertMagic's. Default: a third.
	RenewalWindowRatio float64
	// Wildcard reports whether a wildcard is managed below a validation name, so
	// that one record is asked for that serves all its names. Where a certificate for
	// one was wanted before, the record goes on serving it. May be nil.
	Wildcard func(validationName string) bool
	// Renewal reports whether a certificate of another issuer is being renewed.
	// May be nil.
	Renewal func(ctx context.Context, identifier string) bool
	// Siblings returns, for one run over many names, what tells the issuer whose
	// configuration serves an identifier now, of those with this CA and account; nil if none
	// does. If it is nil itself, this one serves all.
	Siblings func() func(identifier string) *Issuer
	// Publishing writes records through a DNS provider; nil without one.
	Publishing *Publishing
	// Delegation says where records are published in place of the validation names; nil for there.
	Delegation *site.Delegation
	// NotOfferedRetry and NotOfferedRenewalRetry are how long a CA is believed that
	// does not offer the challenge. Defaults: a day, and an hour for renewals.
	NotOfferedRetry, NotOfferedRenewalRetry time.Duration
}

// Issuer obtains certificates by dns-persist-01. It implements certmagic.Issuer,
// certmagic.Revoker and certmagic.RenewalInfoGetter. The Config must not be changed
// after New.
type Issuer struct {
	Config

	ca       *ca.Server
	accounts *account.Holder
	// process is what is known of the DNS provider, unless Publishing has what the process knows.
	process publish.Process

	outage outage
	// keptOrderAt is when the storage has last taken an order, in nanoseconds; 0 if it did not when last asked to.
	keptOrderAt atomic.Int64
}

// outage is a CA that is down.
type outage struct {
	mu    sync.Mutex
	since time.Time // zero if it is not down
	// failedAt is when it has last not answered, and askedAt when somebody was last let through to find out.
	failedAt, askedAt time.Time
	// failures counts the attempts in a row that it has not answered: a single one may be about its domain.
	failures int
}

// sureFailures is how many attempts in a row a CA has not answered if others leave it alone for that.
const sureFailures = 3

// New returns an Issuer for the configuration.
func New(cfg Config) *Issuer {
	cfg.Logger, cfg.Observer = cmp.Or(cfg.Logger, zap.NewNop()), cmp.Or(cfg.Observer, Observer(noObserver{}))
	cfg.Timeout = cmp.Or(cfg.Timeout, defaultTimeout)
	cfg.InlineProcessing = min(cmp.Or(cfg.InlineProcessing, inlineProcessing), cfg.Timeout)
	cfg.MinAskInterval = cmp.Or(cfg.MinAskInterval, minAskInterval)
	cfg.PropagationTimeout = cmp.Or(cfg.PropagationTimeout, defaultPropagationTimeout)
	cfg.PollInterval = cmp.Or(cfg.PollInterval, defaultPollInterval)
	cfg.RenewalWindowRatio = cmp.Or(cfg.RenewalWindowRatio, defaultWindowRatio)
	if cfg.Lanes == nil {
		cfg.Lanes = NewLanes()
	}
	cfg.CAAChecker = cmp.Or(cfg.Checker, cfg.CAAChecker)
	cfg.CacheCap = cmp.Or(cfg.CacheCap, cacheCap(cfg))
	server := newServer(cfg)
	return &Issuer{Config: cfg, ca: server, accounts: newHolder(cfg, server)}
}

// servingBy is Siblings, or this issuer for all.
func servingBy(iss *Issuer) func(identifier string) *Issuer {
	if iss.Siblings == nil {
		return func(string) *Issuer { return iss }
	}
	return iss.Siblings()
}

// IssuerKey returns the key under which certificates are filed. It implements
// certmagic.Issuer.
func (iss *Issuer) IssuerKey() string { return IssuerKey(iss.CA) }

// Revoke revokes a certificate with the bound account. It implements
// certmagic.Revoker.
func (iss *Issuer) Revoke(ctx context.Context, cert certmagic.CertificateResource, reason int) error {
	leaf, err := ca.Leaf(cert.CertificatePEM)
	if err != nil {
		return fmt.Errorf("revoking a certificate: %w", err)
	}
	s, err := iss.open(ctx)
	if err == nil {
		err = s.account.Bind(ctx)
	}
	if err != nil {
		return fmt.Errorf("revoking the certificate of %v: %w", cert.SANs, err)
	}
	err = s.account.Do(ctx, "revoking the certificate", func(account acme.Account) error {
		return s.ACME.RevokeCertificate(ctx, account, leaf, nil, reason)
	})
	if ca.IsProblem(err, "alreadyRevoked") {
		return nil
	}
	return s.account.Problem(ctx, err)
}

// GetRenewalInfo asks the CA when to renew (RFC 9773). It implements
// certmagic.RenewalInfoGetter.
func (iss *Issuer) GetRenewalInfo(ctx context.Context, cert certmagic.Certificate) (acme.RenewalInfo, error) {
	s, err := iss.open(ctx)
	if err != nil {
		return acme.RenewalInfo{}, err
	}
	if s.Directory.RenewalInfo == "" {
		return acme.RenewalInfo{}, fmt.Errorf("the CA %s offers no renewal information", iss.CA)
	}
	return s.ACME.GetRenewalInfo(ctx, cert.Leaf)
}

// note notes how an attempt has ended.
func (o *outage) note(err error, hasAnswered bool, now time.Time) {
	var down *ca.DownError
	isDown := errors.As(err, &down)
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case isDown:
		o.failedAt, o.askedAt = now, now
		o.failures++
		if o.since.IsZero() {
			o.since = now
		}
	case hasAnswered: // one that has not asked the CA knows nothing of it
		o.since, o.failures = time.Time{}, 0
	}
}

// lasts is how long the CA has been down.
func (o *outage) lasts(now time.Time) time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.since.IsZero() {
		return 0
	}
	return now.Sub(o.since)
}

// isSure reports whether the CA is down for others as well.
func (o *outage) isSure() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.failures >= sureFailures
}

// wait is how long an attempt leaves a CA alone that is known to be down: one attempt a minute finds out whether it
// still is, and those in need before that. left is how long the certificate lasts.
func (o *outage) wait(left time.Duration, now time.Time) time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	pause := afterDown(0, left)
	switch {
	case o.failures < sureFailures:
		return 0
	case now.Sub(o.askedAt).Abs() >= pause:
		o.askedAt = now
		return 0
	case o.askedAt.After(o.failedAt): // somebody is finding out
		return pause
	}
	return afterDown(now.Sub(o.since), left)
}

// background is the context key of attempts on which no handshake hangs.
type background struct{}

// InBackground marks an attempt that may take its time also where Config.OnDemand is set.
func InBackground(ctx context.Context) context.Context {
	return context.WithValue(ctx, background{}, true)
}

// IsInBackground reports whether an attempt is marked so.
func IsInBackground(ctx context.Context) bool { return ctx.Value(background{}) != nil }

// Interface guards
var (
	_ certmagic.Issuer            = (*Issuer)(nil)
	_ certmagic.Revoker           = (*Issuer)(nil)
	_ certmagic.RenewalInfoGetter = (*Issuer)(nil)
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
	// lane is that to the CA; nil outside.
	lane *ca.Lane
}

// newServer returns the CA as a configuration has it.
func newServer(cfg Config) *ca.Server {
	server := ca.Config{
		URL: cfg.CA, Store: state.New(cfg.Storage, cfg.CA), Logger: cfg.Logger, Transport: cfg.Transport, UserAgent: cfg.UserAgent, Lanes: cfg.Lanes,
		Dialect: cfg.Dialect, IssuerDomainName: cfg.IssuerDomainName,
		Private:                cfg.PrivateCA,
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

// ChallengeType is the type of the challenge (draft-ietf-acme-dns-persist, section 4).
const ChallengeType = ca.ChallengeType

// What a domain needs to have published.
type (
	// Record is a TXT record that has to be published.
	Record = site.Record
	// Delegation says where records are published in place of the validation names.
	Delegation = site.Delegation
	// Finding is what is published at a validation name where none of it is the record.
	Finding = site.Finding
	// ValueVerdict is what the CA makes of one value.
	ValueVerdict = site.ValueVerdict
	// UnsupportedNameError is a name that can never be validated this way.
	UnsupportedNameError = site.UnsupportedNameError
)

// Policies for `policy=wildcard` in the records that are asked for.
const (
	// PolicyAuto asks for it where a wildcard is managed. It is the default.
	PolicyAuto = site.PolicyAuto
	// PolicyExact never asks for it.
	PolicyExact = site.PolicyExact
	// PolicyWildcard always asks for it.
	PolicyWildcard = site.PolicyWildcard
)

// NewTransport returns what carries requests to a CA where Config has no Transport: a connection
// that goes silent is given up after half a minute.
func NewTransport() *http.Transport { return ca.NewTransport() }

// Lanes are the ways to all CAs, see Config.Lanes.
type Lanes = ca.Lanes

// NewLanes returns lanes in which nobody is.
func NewLanes() *Lanes { return ca.NewLanes() }

// OrderWindow is how many orders of an account may be made in which time.
type OrderWindow = ca.OrderWindow

// DefaultMostLanes is Config.MaxParallelOrders where it is zero.
const DefaultMostLanes = ca.DefaultMostLanes

// IssuerKey returns the storage key under which CertMagic files certificates of
// the CA with the given directory URL. It is the key of CertMagic's own ACME
// issuer on purpose: a site that moves between the two keeps its certificate.
func IssuerKey(directory string) string { return state.IssuerKey(directory) }

// The account, see the methods of Issuer that return them.
type (
	// Account is what may be shown of the bound account: everything but its key.
	Account = account.Account
	// AccountState is what there is to know of the bound account, but its keys.
	AccountState = account.State
	// ImportResult is what ImportAccount has done.
	ImportResult = account.Imported
	// Rollover is what RollKey has done.
	Rollover = account.Rollover
	// AccountError is an account that cannot be used. No other one was taken in its place.
	AccountError = account.Error
)

// ErrNoAccount says that no account is bound yet, so nothing can name it.
var ErrNoAccount = account.ErrNoAccount

// What ImportAccount has done.
const (
	// ImportNew says that the account was bound where none was.
	ImportNew = account.ImportNew
	// ImportAlready says that the account was bound with this key already.
	ImportAlready = account.ImportAlready
	// ImportNewer says that the account was bound with a key that it no longer has.
	ImportNewer = account.ImportNewer
)

// Account returns the bound account, and binds one if there is none yet.
func (iss *Issuer) Account(ctx context.Context) (Account, error) { return iss.accounts.Bind(ctx) }

// KnownAccount returns the bound account as it is in storage; false if none is bound. It
// binds and registers nothing and asks nobody.
func (iss *Issuer) KnownAccount(ctx context.Context) (AccountState, bool, error) {
	return iss.accounts.Known(ctx)
}

// KeepAccount makes sure that storage has the account that this process uses: a storage that has lost it gets it back.
// It binds and registers nothing and asks nobody.
func (iss *Issuer) KeepAccount(ctx context.Context) error { return iss.accounts.Keep(ctx) }

// AccountStatus is KnownAccount with what the CA answers about the account. It changes nothing. With
// an error that is not the CA's answer about the account, the state is what storage has.
func (iss *Issuer) AccountStatus(ctx context.Context) (AccountState, error) {
	state, err := iss.accounts.Status(ctx)
	switch {
	case err != nil:
		iss.reached(err, false, "")
	case state.Status == acme.StatusValid:
		iss.reached(nil, true, state.URL)
	default: // why it cannot be used, if so, is found out as it is for certificates
		if s, err := openKnown(ctx, iss); err == nil && s != nil {
			_, _ = s.findAccount(ctx)
		}
	}
	return state, err
}

// ExportAccount returns the bound account with its key as one JSON file, for a backup or to move it
// to another storage. Whoever has it can get certificates for every name whose record names the
// account.
func (iss *Issuer) ExportAccount(ctx context.Context) ([]byte, error) {
	return iss.accounts.Export(ctx)
}

// ImportAccount binds an account that ExportAccount has written, once the CA has confirmed it. It
// never takes the place of another account, and never brings a former key back.
func (iss *Issuer) ImportAccount(ctx context.Context, data []byte) (ImportResult, error) {
	return iss.accounts.Import(ctx, data)
}

// RollKey changes the key of the bound account (RFC 8555 section 7.3.5). The account URL stays, and
// with it the records of the deployed drafts; those of draft -02 are to be replaced afterwards.
func (iss *Issuer) RollKey(ctx context.Context) (Rollover, error) { return iss.accounts.Roll(ctx) }

// DeactivateAccount ends the bound account at the CA (RFC 8555 section 7.3.6), for ever: every record
// that names it is worthless afterwards. The url must be the bound account's.
func (iss *Issuer) DeactivateAccount(ctx context.Context, url string) error {
	return iss.accounts.Deactivate(ctx, url)
}

// AccountCheck returns what a Solver needs as CheckAccount: it asks the CA for the account, and wants
// to see it valid (section 4.5 of draft -02).
func AccountCheck(client *acme.Client, registered acme.Account) func(context.Context) error {
	return account.Checker(client, registered)
}
