package dnspersist

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddytls"
	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/ca"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/foreign"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/operator"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/parking"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
)

// owner is an issuer that Caddy runs: for what waits, and for an operator. It implements parking.Owner
// by CertMagic.
type owner struct{ iss *Issuer }

// Configuration implements parking.Owner.
func (o owner) Configuration() *parking.Configuration { return o.iss.rt.app.waits }

// Key implements parking.Owner.
func (o owner) Key() string { return o.iss.rt.key }

// IsAlone implements parking.Owner.
func (o owner) IsAlone() bool { return len(o.iss.rt.config().Issuers) == 1 }

// IsOnDemand implements parking.Owner.
func (o owner) IsOnDemand() bool { return o.iss.isInUse() && o.iss.rt.config().OnDemand != nil }

// Stored implements parking.Owner.
func (o owner) Stored(ctx context.Context, domain string) *x509.Certificate {
	return acmepersist.StoredCertificate(ctx, o.iss.rt.config().Storage, o.iss.IssuerKey(), domain)
}

// Storage implements parking.Owner.
func (o owner) Storage() state.Store {
	return state.Store{
		Storage: o.iss.rt.config().Storage, Folder: path.Join(state.Root, certmagic.StorageKeys.Safe(o.iss.IssuerKey())), Logger: o.iss.rt.logger,
	}
}

// Directory implements operator.Issuer.
func (o owner) Directory() string { return o.iss.CA }

// Identity implements operator.Issuer.
func (o owner) Identity() string {
	var storage certmagic.Storage
	if cfg := o.iss.rt.config(); cfg != nil {
		storage = cfg.Storage
	}
	return identity(o.iss, storage)
}

// identity is the same for issuers that do the same.
func identity(iss *Issuer, storage certmagic.Storage) string {
	return iss.CA + "|" + iss.rt.fingerprint + "|" + operator.StorageKey(storage)
}

// ACME implements operator.Issuer.
func (o owner) ACME() (*acmepersist.Issuer, error) {
	if !o.iss.isInUse() {
		return nil, fmt.Errorf("the issuer for %s is not in use", o.iss.CA)
	}
	active, _ := o.iss.active()
	return active, nil
}

// Refuses implements operator.Issuer.
func (o owner) Refuses(name string) error { return o.iss.refuses(name) }

// account is the same for issuers that use one account: of a CA, in a storage.
func (o owner) account() string { return accountIn(o.iss, o.iss.rt.config().Storage) }

// accountIn is that of an issuer in a storage.
func accountIn(iss *Issuer, storage certmagic.Storage) string {
	return strings.Join([]string{iss.CA, iss.AccountURL, iss.AccountKey, operator.StorageKey(storage)}, " ")
}

// siblings is the acmepersist.Config.Siblings: issuers with one account may publish by different
// providers, at different places, for their sites.
func (o owner) siblings() func(identifier string) *acmepersist.Issuer {
	p, mine := o.iss.rt.app.planned(), o.account()
	return func(identifier string) *acmepersist.Issuer {
		for _, other := range p.Serving(identifier) {
			if other.isInUse() && (owner{other}).account() == mine {
				active, _ := other.active()
				return active
			}
		}
		return nil
	}
}

// renewsOther reports whether another issuer of the policy has a certificate for the name.
func (o owner) renewsOther(ctx context.Context, name string) bool {
	cfg := o.iss.rt.config()
	return slices.ContainsFunc(cfg.Issuers, func(other certmagic.Issuer) bool {
		return cfg.Storage.Exists(ctx, certmagic.StorageKeys.SiteCert(other.IssuerKey(), name))
	})
}

// Obtain implements parking.Owner: it asks CertMagic for the certificate, not by a job of its own, which would
// begin behind all others. A domain that another node of the cluster has served meanwhile does not wait any longer.
func (o owner) Obtain(alive context.Context, domain string, notAfter time.Time) (done bool, err error) {
	ctx, end := attemptContext(alive)
	defer end()
	cfg := o.iss.rt.config()
	if cfg.OnDemand != nil && cfg.OnDemand.DecisionFunc != nil {
		// CertMagic asks for permission at the handshake only
		switch err := cfg.OnDemand.DecisionFunc(ctx, domain); {
		case isRefusal(err):
			return true, nil
		case err != nil:
			o.iss.rt.logger.Debug("whether the name is permitted is not known; it is tried again", zap.String("domain", domain), zap.Error(err))
			return false, nil
		}
	}
	if notAfter.IsZero() {
		err = cfg.ObtainCertAsync(ctx, domain)
	} else {
		err = renew(ctx, cfg, domain, notAfter)
	}
	if err != nil || cfg.OnDemand != nil { // a handshake loads it from storage
		return err == nil, err
	}
	// of a renewed one, maintenance would take it at one of its next ticks, but not while it waits after
	// a failure: the old one may run out meanwhile
	cert, err := cfg.CacheManagedCertificate(ctx, domain)
	if err == nil && !notAfter.IsZero() {
		o.renewInTime(domain, cert)
	}
	return err == nil, err
}

// attemptContext is that of an attempt at our bidding. It ends after parking.AttemptTimeout, unless the
// attempt has a certificate to lose then.
func attemptContext(alive context.Context) (ctx context.Context, end func()) {
	ctx, cancel := context.WithCancelCause(acmepersist.InBackground(alive))
	timeout := time.AfterFunc(parking.AttemptTimeout, func() { cancel(parking.ErrTookLong) })
	ctx = acmepersist.OnFinish(ctx, func() { timeout.Stop() })
	return ctx, func() {
		timeout.Stop()
		cancel(nil)
	}
}

// replacing is the context key of the end of the certificate that a retry renews.
type replacing struct{}

// errRenewedMeanwhile ends a retry that came second in a cluster.
var errRenewedMeanwhile = errors.New("another node has renewed the certificate meanwhile")

// renew renews a certificate that ends at notAfter. It is forced, for CertMagic has
// found it due before the domain began to wait, and what storage knows of the CA's renewal
// window may be older; Issue then sees to it that a cluster does not renew twice.
func renew(ctx context.Context, cfg *certmagic.Config, domain string, notAfter time.Time) error {
	err := cfg.RenewCertAsync(context.WithValue(ctx, replacing{}, notAfter), domain, true)
	if errors.Is(err, errRenewedMeanwhile) {
		return nil
	}
	return err
}

// isRenewedMeanwhile reports, under CertMagic's lock, whether the certificate that a
// retry is to renew is no longer the one in storage.
func (o owner) isRenewedMeanwhile(ctx context.Context, domain string) bool {
	notAfter, ok := ctx.Value(replacing{}).(time.Time)
	if !ok {
		return false
	}
	cert := o.Stored(ctx, domain)
	return cert != nil && !cert.NotAfter.Equal(notAfter)
}

// isRefusal reports whether an error of the permission module is its no. Any other means that it
// does not know: a name that waits must not be lost to a time-out.
func isRefusal(err error) bool { return errors.Is(err, caddytls.ErrPermissionDenied) }

// hearPermission has a no of the permission end the watch of the name at once. The answer itself stays
// what it is.
func (iss *Issuer) hearPermission(cfg *certmagic.Config) {
	if cfg.OnDemand == nil || cfg.OnDemand.DecisionFunc == nil || cfg.OnDemand == iss.rt.heard {
		return
	}
	wrapped := *cfg.OnDemand
	decide := wrapped.DecisionFunc
	wrapped.DecisionFunc = func(ctx context.Context, name string) error {
		err := decide(ctx, name)
		if isRefusal(err) && iss.rt.app.shared.registry.Forget(owner{iss}, name) {
			iss.rt.logger.Debug("no longer permitted; not watching the name any more", zap.String("domain", name), zap.Error(err))
		}
		return err
	}
	cfg.OnDemand = &wrapped
	iss.rt.heard = &wrapped
}

// certMagicBackoff is the longest time for which CertMagic's maintenance leaves a name alone after
// a renewal that failed. It does not learn that the app has renewed the certificate since.
const certMagicBackoff = 6 * time.Hour

// renewInTime sees to a certificate that the app has renewed, and that comes due while CertMagic
// may still wait after the failure before: such are those of some hours.
func (o owner) renewInTime(domain string, cert certmagic.Certificate) {
	cfg, app := o.iss.rt.config(), o.iss.rt.app
	r := renewer{
		ratio: cmp.Or(cfg.RenewalWindowRatio, certmagic.DefaultRenewalWindowRatio),
		renew: func(ctx context.Context) (*x509.Certificate, error) {
			if err := cfg.RenewCertAsync(ctx, domain, false); err != nil {
				return nil, err
			}
			next, err := cfg.CacheManagedCertificate(ctx, domain)
			return next.Leaf, err
		},
		waits: func() bool { return app.shared.registry.Waits(o, domain) },
	}
	if cert.Leaf != nil && r.wait(cert.Leaf) <= certMagicBackoff {
		app.spawn(func(alive context.Context) { r.run(alive, cert.Leaf) })
	}
}

// renewer renews the certificates of one name in time.
type renewer struct {
	ratio float64
	renew func(context.Context) (*x509.Certificate, error)
	// waits reports whether the name waits: then it is retried, and what it gets then is seen
	// to anew.
	waits func() bool
}

// wait is the time until a certificate is due. CertMagic rounds, and would find it not due at once.
func (r renewer) wait(leaf *x509.Certificate) time.Duration {
	life := leaf.NotAfter.Sub(leaf.NotBefore)
	window := time.Duration(float64(life) * r.ratio)
	return max(time.Until(leaf.NotAfter.Add(-window)), 0) + life/100 + time.Second
}

// run goes on until nothing comes due any more before CertMagic is ready, or the name is another's.
func (r renewer) run(alive context.Context, leaf *x509.Certificate) {
	failures, wait := 0, r.wait(leaf)
	for wait <= certMagicBackoff {
		if ca.Sleep(alive, wait) != nil {
			return
		}
		ctx, end := attemptContext(alive)
		next, err := r.renew(ctx)
		end()
		switch {
		case err != nil && r.waits():
			return
		case err != nil: // CertMagic has logged it
			failures++
			wait = parking.AfterFailures(failures, leaf.NotAfter, time.Now())
		case next == nil || !next.NotAfter.After(leaf.NotAfter):
			return
		default:
			leaf, failures, wait = next, 0, r.wait(next)
		}
	}
}

// certificateEvents hands over to the registry what CertMagic reports of certificates, whichever issuer
// they are of: one that is loaded from storage comes to no issuer at all. It has it from hearCertMagic, and
// not by Caddy's events app, which would log an error for each attempt that a reload cuts short.
type certificateEvents struct{ app *App }

// certificateEvent is an event of CertMagic's.
type certificateEvent struct {
	name string
	data map[string]any
}

// hear takes an event. Before the app starts other apps are still provisioned, and what is managed is not
// known yet: what comes then waits.
func (e certificateEvents) hear(event certificateEvent) {
	switch event.name {
	case "cached_managed_cert", "cert_obtained", "cert_failed":
	default:
		return
	}
	e.app.mu.Lock()
	started := e.app.started
	if !started {
		e.app.early = append(e.app.early, event)
	}
	e.app.mu.Unlock()
	if started {
		e.take(event)
	}
}

// start hands over what came before the app has started.
func (e certificateEvents) start() {
	a := e.app
	a.mu.Lock()
	early := a.early
	a.started, a.early = true, nil
	a.mu.Unlock()
	a.spawn(func(context.Context) {
		for _, event := range early {
			e.take(event)
		}
	})
}

// take hands one event over. Names on demand are not kept: whoever asks looks them up.
func (e certificateEvents) take(event certificateEvent) {
	r, c, names := e.app.shared.registry, e.app.waits, e.app.planned().names
	domain, _ := event.data["identifier"].(string)
	switch kind := event.name; {
	case kind == "cached_managed_cert":
		domains, _ := event.data["sans"].([]string)
		for _, domain := range domains {
			if names[domain] != nil {
				r.Served(c, domain, "")
			}
		}
	case names[domain] == nil:
	case kind == "cert_obtained":
		issuer, _ := event.data["issuer"].(string)
		r.Served(c, domain, issuer)
		e.app.spawn(func(alive context.Context) { e.app.seeLoaded(alive, domain) })
	case kind == "cert_failed":
		// another issuer may have written anything into it, at any length, and it is kept
		r.Failed(c, domain, errors.New(foreign.Line(fmt.Sprint(event.data["error"]))))
	}
}
