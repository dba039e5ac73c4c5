package dnspersist

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddytls"
	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/parking"
	"github.com/dnspersist/caddy-dnspersist/internal/tuning"
)

// runtime is the state of a provisioned issuer.
type runtime struct {
	logger    *zap.Logger
	app       *App
	core      acmepersist.Config
	transport *http.Transport
	// tuning is for tests: it is what was in force when the issuer was provisioned.
	tuning tuning.Values
	// fingerprint tells configurations apart: a name that waits is answered from memory
	// only for the one under which it waits.
	fingerprint string
	// key is that of parking.Owner.
	key string
	// publishing is what the DNS provider is used for; nil without one.
	publishing *acmepersist.Publishing
	// globalResolvers is true if there are resolvers, from whatever option.
	globalResolvers bool
	// insideResolvers are those that only this network can ask, where its name servers are not
	// asked.
	insideResolvers []string
	// secretFiles are the files that secrets are read from.
	secretFiles []string

	mu    sync.Mutex
	magic *certmagic.Config
	// active is the issuer made for magic's storage.
	active *acmepersist.Issuer
	// heard is the permission of magic whose no ends the watch of a name.
	heard *certmagic.OnDemandConfig
}

// Provision sets up the issuer. It asks nothing of the network or the storage.
func (iss *Issuer) Provision(ctx caddy.Context) error {
	if iss.ACMEIssuer == nil {
		iss.ACMEIssuer = new(caddytls.ACMEIssuer)
	}
	// the app's name: whoever filters the log finds all of it under one
	rt := &runtime{logger: ctx.Logger(new(App)), fingerprint: fingerprint(iss), tuning: tuning.Get()}

	warnSecrets(rt.logger, literalSecrets(iss))
	rt.secretFiles = secretFiles(iss)
	if err := iss.expand(caddy.NewReplacer()); err != nil {
		return err
	}
	var err error
	if rt.publishing, err = iss.loadProvider(ctx, rt.tuning); err != nil {
		return err
	}
	dns := iss.takeDNSSettings(ctx)
	rt.globalResolvers = len(dns.Resolvers) > 0
	if rt.transport, err = iss.newTransport(ctx); err != nil {
		return err
	}
	iss.rt = rt
	if err := iss.ACMEIssuer.Provision(ctx); err != nil {
		return err
	}
	iss.CA = directoryURL(iss.CA)
	if err := iss.checkPolicies(ctx); err != nil {
		return err
	}
	app, err := ctx.App("dns_persist")
	if err != nil {
		return fmt.Errorf("getting the dns_persist app: %w", err)
	}
	rt.app = app.(*App)
	if networks := rt.app.PrivateNetworks; len(networks) > 0 { // names are watched by an issuer as it is configured
		rt.fingerprint += "|" + strings.Join(networks, " ")
	}
	rt.key = acmepersist.IssuerKey(iss.CA) + "|" + rt.fingerprint
	if rt.publishing != nil {
		rt.publishing.Process = &rt.app.shared.providers
	}
	rt.core = iss.newCore(dns)
	return nil
}

// directoryURL completes the configured CA as CertMagic does: Let's Encrypt if there
// is none, https if it has no scheme.
func directoryURL(ca string) string {
	if ca == "" {
		return certmagic.LetsEncryptProductionCA
	}
	if !strings.Contains(ca, "://") {
		return "https://" + ca
	}
	return ca
}

// expand replaces placeholders in the fields that the embedded issuer does not know.
func (iss *Issuer) expand(repl *caddy.Replacer) error {
	fields := map[string]*string{
		"account_url": &iss.AccountURL, "account_uri": &iss.AccountURI, "issuer_domain_name": &iss.IssuerDomainName,
	}
	for name, field := range fields {
		if *field == "" {
			continue
		}
		expanded, err := repl.ReplaceOrErr(*field, true, true)
		if err != nil {
			return fmt.Errorf("expanding %s '%s': %w", name, *field, err)
		}
		*field = expanded
	}
	if iss.AccountKey != "" {
		// the embedded issuer's own error would quote the field
		key, err := repl.ReplaceOrErr(iss.AccountKey, true, true)
		if err != nil {
			return errors.New("expanding account_key: a placeholder in it has no value (the field is not shown)")
		}
		iss.AccountKey = key
	}
	return nil
}

// Validate checks what can be known without network and storage.
func (iss *Issuer) Validate() error { return validate(iss) }

// Cleanup closes idle connections.
func (iss *Issuer) Cleanup() error {
	if iss.rt != nil && iss.rt.transport != nil {
		iss.rt.transport.CloseIdleConnections()
	}
	return nil
}

// SetConfig stores the CertMagic config; Caddy calls it several times.
func (iss *Issuer) SetConfig(cfg *certmagic.Config) {
	iss.ACMEIssuer.SetConfig(cfg)
	iss.rt.mu.Lock()
	defer iss.rt.mu.Unlock()
	iss.hearPermission(cfg)
	iss.hearCertMagic(cfg)
	iss.rt.magic = cfg
	iss.rt.active = nil
}

// config is the current CertMagic config; nil before Caddy has set the issuer up.
func (rt *runtime) config() *certmagic.Config {
	rt.mu.Lock()
	defer rt.mu.Unlock()
	return rt.magic
}

// isInUse reports whether Caddy has set the issuer up.
func (iss *Issuer) isInUse() bool { return iss.rt != nil && iss.rt.config() != nil }

// active returns the issuer for the current CertMagic config.
func (iss *Issuer) active() (*acmepersist.Issuer, *certmagic.Config) {
	iss.rt.mu.Lock()
	defer iss.rt.mu.Unlock()
	if iss.rt.active == nil {
		cfg := iss.rt.magic
		core := iss.rt.core
		app, account := iss.rt.app, accountIn(iss, cfg.Storage)
		core.Storage, core.Observer = cfg.Storage, reporter{app.shared.metrics.CA(iss.CA, account), app, iss.CA, account}
		core.RenewalWindowRatio = cfg.RenewalWindowRatio
		core.OnDemand = cfg.OnDemand != nil
		core.WritesPerHour, core.MaxRecords = iss.rt.app.onDemand.WritesPerHour, iss.rt.app.onDemand.MaxRecords
		core.NoWait = cfg.OnDemand != nil || len(cfg.Issuers) > 1
		core.Wildcard = func(validationName string) bool { return iss.rt.app.planned().isWide(iss.CA, validationName) }
		core.Renewal = owner{iss}.renewsOther
		core.Siblings = owner{iss}.siblings
		iss.rt.active = acmepersist.New(core)
	}
	return iss.rt.active, iss.rt.magic
}

// PreCheck lets every name pass: CertMagic would skip a refusal without a word, so
// Issue reports it.
func (iss *Issuer) PreCheck(context.Context, []string, bool) error { return nil }

// errCutShort ends an attempt that has panicked: CertMagic goes on after that.
var errCutShort = errors.New("the attempt was cut short")

// Issue obtains a certificate for the CSR.
func (iss *Issuer) Issue(ctx context.Context, csr *x509.CertificateRequest) (*certmagic.IssuedCertificate, error) {
	o := owner{iss}
	domain, err := acmepersist.NameFromCSR(csr)
	switch {
	case err != nil && o.IsAlone():
		return nil, certmagic.ErrNoRetry{Err: explained{err}}
	case err != nil: // another issuer may do
		return nil, explained{err}
	}
	defer iss.rt.app.shared.starts.leave(domain)
	if o.isRenewedMeanwhile(ctx, domain) {
		return nil, certmagic.ErrNoRetry{Err: errRenewedMeanwhile}
	}
	if !o.IsOnDemand() {
		iss.rt.app.takesUp(domain)
	}
	attempt, err := iss.rt.app.shared.registry.Begin(ctx, o, domain)
	if err != nil {
		return nil, certmagic.ErrNoRetry{Err: o.answer(err, true)}
	}
	defer attempt.Settle(ctx, errCutShort)
	active, _ := iss.active()
	cert, err := active.Obtain(ctx, csr, acmepersist.Request{Seen: attempt.Seen, Progress: func(p acmepersist.Phase) {
		iss.rt.app.shared.starts.leave(domain)
		attempt.Progress(p)
	}})
	if cause := context.Cause(ctx); err != nil && errors.Is(cause, parking.ErrTookLong) && !errors.Is(err, cause) {
		err = fmt.Errorf("%w: %w", cause, err)
	}
	switch isHeld := attempt.Settle(ctx, err); {
	case err == nil:
		return cert, nil
	case isHeld:
		// frees the job slot and the lock; the registry has the domain tried again
		return nil, certmagic.ErrNoRetry{Err: o.answer(err, false)}
	case o.IsAlone() && parking.IsCutShort(ctx) && errors.Is(err, context.Canceled):
		return nil, pending{err}
	}
	return nil, explained{err}
}

// Revoke revokes a certificate with the bound account.
func (iss *Issuer) Revoke(ctx context.Context, cert certmagic.CertificateResource, reason int) error {
	active, _ := iss.active()
	return active.Revoke(ctx, cert, reason)
}

// explained is an error that shows all it holds in CertMagic's log: CertMagic
// looks for the CA's problem document in an error and logs that instead of the error,
// without the account, the names and what to do.
type explained struct{ error }

func (e explained) Unwrap() error { return e.error }

// As gives the CA's problem document with the whole error as its detail.
func (e explained) As(target any) bool {
	problem, ok := target.(*acme.Problem)
	if !ok {
		return false
	}
	var found acme.Problem
	if !errors.As(e.error, &found) {
		return false
	}
	*problem = acme.Problem{Type: found.Type, Status: found.Status, Detail: e.Error()}
	return true
}

// Interface guards
var (
	_ caddy.Provisioner                                 = (*Issuer)(nil)
	_ caddy.Validator                                   = (*Issuer)(nil)
	_ caddy.CleanerUpper                                = (*Issuer)(nil)
	_ caddyfile.Unmarshaler                             = (*Issuer)(nil)
	_ caddytls.ConfigSetter                             = (*Issuer)(nil)
	_ certmagic.Issuer                                  = (*Issuer)(nil)
	_ certmagic.PreChecker                              = (*Issuer)(nil)
	_ certmagic.Revoker                                 = (*Issuer)(nil)
	_ certmagic.RenewalInfoGetter                       = (*Issuer)(nil)
	_ interface{ GetACMEIssuer() *caddytls.ACMEIssuer } = (*Issuer)(nil)
)
