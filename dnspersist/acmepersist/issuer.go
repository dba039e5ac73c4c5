package acmepersist

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/account"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/ca"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/publish"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/site"
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
	// Timeout is how long the CA may take to validate. Default: 12 hours.
	Timeout time.Duration
	// InlineProcessing is how long of it one attempt waits, before the order is looked at again by a later
	// one. Default: 5 minutes.
	InlineProcessing time.Duration
	// Limiter paces new orders; nil for no limit. See SharedLimiter.
	Limiter func(account string) *rate.Limiter

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
	// Encrypt, 5 minutes for others; negative: none.
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
	// Delegation says where records stand in place of the validation names; nil for there.
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
}

// outage is a CA that is down.
type outage struct {
	mu    sync.Mutex
	since time.Time // zero if it is not down
}

// New returns an Issuer for the configuration.
func New(cfg Config) *Issuer {
	cfg.Logger = cmp.Or(cfg.Logger, zap.NewNop())
	cfg.Timeout = cmp.Or(cfg.Timeout, defaultTimeout)
	cfg.InlineProcessing = min(cmp.Or(cfg.InlineProcessing, inlineProcessing), cfg.Timeout)
	cfg.MinAskInterval = cmp.Or(cfg.MinAskInterval, minAskInterval)
	cfg.PropagationTimeout = cmp.Or(cfg.PropagationTimeout, defaultPropagationTimeout)
	cfg.PollInterval = cmp.Or(cfg.PollInterval, defaultPollInterval)
	cfg.RenewalWindowRatio = cmp.Or(cfg.RenewalWindowRatio, defaultWindowRatio)
	cfg.CAAChecker = cmp.Or(cfg.Checker, cfg.CAAChecker)
	if cfg.CacheCap == 0 {
		cfg.CacheCap = cacheCap(cfg.CA)
	}
	server := newServer(cfg)
	return &Issuer{Config: cfg, ca: server, accounts: newHolder(cfg, server)}
}

// serving is Siblings, or this issuer for all.
func (iss *Issuer) serving() func(identifier string) *Issuer {
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
func (o *outage) note(err error, now time.Time) {
	var down *ca.DownError
	isDown := errors.As(err, &down)
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case !isDown:
		o.since = time.Time{}
	case o.since.IsZero():
		o.since = now
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
