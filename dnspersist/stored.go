package dnspersist

import (
	"context"
	"crypto/tls"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddytls"
	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/ca"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
)

// loadedWithin is how long after CertMagic has stored a certificate it is in Caddy's cache at the latest, loadAgain the
// longest time between two tries to load it.
const loadedWithin, loadAgain = 10 * time.Second, time.Minute

// seeLoaded has a first certificate loaded that CertMagic has stored and could not load, for it gives the name up
// then: the storage may have been cut off at that moment, or another node have written the same files.
func (a *App) seeLoaded(alive context.Context, domain string) {
	issuers := a.planned().Serving(domain)
	if len(issuers) == 0 || !issuers[0].isInUse() {
		return
	}
	_, cfg := issuers[0].active()
	for wait := loadedWithin; cfg.OnDemand == nil; wait = min(2*wait, loadAgain) {
		if ca.Sleep(alive, wait) != nil || len(caddytls.AllMatchingCertificates(domain)) > 0 {
			return
		}
		_, err := cfg.CacheManagedCertificate(alive, domain)
		if err == nil {
			a.logger.Info("loaded a certificate that was stored and could not be loaded before", zap.String("domain", domain))
			return
		}
		a.logger.Debug("a certificate that was stored cannot be loaded", zap.String("domain", domain), zap.Error(err))
		if removeMismatched(alive, a.logger, cfg, issuers[0].IssuerKey(), domain) && cfg.ManageAsync(alive, []string{domain}) == nil {
			return
		}
	}
}

// removeMismatched removes a certificate from storage whose key is another one's, so that another certificate can be
// obtained, and reports whether it did. CertMagic writes the two after each other: two nodes that do so at once, because
// one of them has lost the lock, can leave the certificate of one with the key of the other, which CertMagic
// would neither serve nor replace.
func removeMismatched(ctx context.Context, logger *zap.Logger, cfg *certmagic.Config, issuerKey, domain string) (removed bool) {
	certificate := certmagic.StorageKeys.SiteCert(issuerKey, domain)
	isMismatched := func() bool {
		chain, err := cfg.Storage.Load(ctx, certificate)
		if err != nil {
			return false
		}
		key, err := cfg.Storage.Load(ctx, certmagic.StorageKeys.SitePrivateKey(issuerKey, domain))
		if err != nil {
			return false
		}
		_, err = tls.X509KeyPair(chain, key)
		return err != nil && strings.Contains(err.Error(), "does not match")
	}
	if !isMismatched() {
		return false
	}
	err := state.Store{Storage: cfg.Storage, Folder: state.Root}.Locked(ctx, "issue_cert_"+domain, nil, func() error {
		if !isMismatched() { // whoever had the lock has stored another one
			return nil
		}
		removed = true
		return cfg.Storage.Delete(ctx, certificate)
	})
	if removed && err == nil {
		logger.Warn("removed a certificate whose key is another one's, which two nodes have stored at once; another one is obtained",
			zap.String("domain", domain), zap.String("storage_key", certificate))
	}
	return removed && err == nil
}
