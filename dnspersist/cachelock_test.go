package dnspersist

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"iter"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/parking"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
)

// CertMagic's maintenance reads the storage, and logs, while it holds the lock of its cache, and whoever loads a
// certificate has all readers of the cache wait meanwhile. Nothing of that may hold up the registry, nor wait for it:
// all TLS handshakes would hang.
func TestCacheLockHoldsNothingUp(t *testing.T) {
	c := newCacheLock(t)
	maintained := c.spawn(func() { _ = c.cache.RenewManagedCertificates(canceled()) })
	<-c.storage.asked // maintenance reads the storage within the lock
	loaded := c.spawn(func() { _, _ = c.magic.CacheUnmanagedTLSCertificate(t.Context(), c.other, nil) })
	read := c.spawnUntilOneWaits(func() { c.cache.AllMatchingCertificates("d0.example.com") })
	scraped := c.spawn(func() { c.registry.Snapshot() })
	<-c.lookedUp
	free := c.spawn(func() { c.registry.Poke([]string{"d0.example.com"}) })
	ended(t, free, "an operator's look at a domain, while the lock is held")
	close(c.storage.goOn)
	for who, done := range map[string]<-chan struct{}{"maintenance": maintained, "loading": loaded, "a handshake": read, "a scrape": scraped} {
		ended(t, done, who)
	}
	if c.logs.FilterMessageSnippet("renewal window").Len() == 0 {
		t.Error("CertMagic has logged nothing within its lock: this test shows nothing")
	}
}

// cacheLock is a registry beside a cache of CertMagic's with certificates that are due.
type cacheLock struct {
	t        *testing.T
	registry *parking.Registry
	cache    *certmagic.Cache
	magic    *certmagic.Config
	storage  *slowStorage
	logs     *observer.ObservedLogs
	other    tls.Certificate
	lookedUp chan struct{} // has one once a certificate is looked up in the cache
}

func newCacheLock(t *testing.T) *cacheLock {
	core, logs := observer.New(zap.DebugLevel)
	c := &cacheLock{
		t: t, registry: parking.New(propagation.SchedulerConfig{}), logs: logs, lookedUp: make(chan struct{}, 1),
		storage: &slowStorage{Storage: &certmagic.FileStorage{Path: t.TempDir()}, asked: make(chan struct{}, 1), goOn: make(chan struct{})},
	}
	t.Cleanup(c.registry.Close)
	c.cache = certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert: func(certmagic.Certificate) (*certmagic.Config, error) { return c.magic, nil },
		Logger:           zap.NewNop(), RenewCheckInterval: time.Hour, OCSPCheckInterval: time.Hour,
	})
	t.Cleanup(c.cache.Stop)
	var names []string
	waits := &parking.Configuration{
		CA:      func(string) (string, bool) { return "https://ca.test/dir", true },
		Managed: func() iter.Seq[string] { return slices.Values(names) },
		Certificate: func(domain string) (x parking.Certificate) {
			select {
			case c.lookedUp <- struct{}{}:
			default:
			}
			for _, cert := range c.cache.AllMatchingCertificates(domain) {
				x.NotAfter = cert.Leaf.NotAfter
			}
			return x
		},
	}
	iss := noIssuer{}
	c.magic = certmagic.New(c.cache, certmagic.Config{
		Storage: c.storage.Storage, Issuers: []certmagic.Issuer{iss}, DisableARI: true, DisableStorageCheck: true, OCSP: certmagic.OCSPConfig{DisableStapling: true},
		Logger: zap.New(quietCore{
			Core: core, ended: func() bool { return false },
			waits: func(domain string) bool { return c.registry.Waits(anyOwner{waits}, domain) },
		}),
	})
	keys := certmagic.StorageKeys
	for i := range 3 {
		name := fmt.Sprintf("d%d.example.com", i)
		names = append(names, name)
		cert, key := dueCertificate(t, name)
		for at, value := range map[string][]byte{
			keys.SiteCert(iss.IssuerKey(), name): cert, keys.SitePrivateKey(iss.IssuerKey(), name): key,
			keys.SiteMeta(iss.IssuerKey(), name): []byte(`{"sans":["` + name + `"]}`),
		} {
			if err := c.storage.Store(t.Context(), at, value); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := c.magic.CacheManagedCertificate(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	c.magic.Storage = c.storage
	c.registry.Start(waits)
	var err error
	if c.other, err = tls.X509KeyPair(dueCertificate(t, "other.example.com")); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *cacheLock) spawn(fn func()) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		fn()
	}()
	return done
}

// spawnUntilOneWaits runs fn until it does not return: then somebody waits for the cache alone.
func (c *cacheLock) spawnUntilOneWaits(fn func()) <-chan struct{} {
	for began := time.Now(); time.Since(began) < 20*time.Second; {
		done := c.spawn(fn)
		select {
		case <-done:
		case <-time.After(50 * time.Millisecond):
			return done
		}
	}
	c.t.Fatal("nobody waits for the cache")
	return nil
}

func ended(t *testing.T, done <-chan struct{}, who string) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		panic(who + " does not end") // nor would what cleans up after the test
	}
}

func canceled() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// slowStorage does not answer for certificates before it may.
type slowStorage struct {
	certmagic.Storage
	asked, goOn chan struct{}
}

func (s *slowStorage) Load(ctx context.Context, key string) ([]byte, error) {
	if strings.HasPrefix(key, "certificates/") {
		select {
		case s.asked <- struct{}{}:
		default:
		}
		<-s.goOn
	}
	return s.Storage.Load(ctx, key)
}

// Lock has the renewals that follow end at once.
func (s *slowStorage) Lock(context.Context, string) error { return errors.New("no") }

// noIssuer issues nothing.
type noIssuer struct{}

func (noIssuer) IssuerKey() string { return "ca.test-dir" }
func (noIssuer) Issue(context.Context, *x509.CertificateRequest) (*certmagic.IssuedCertificate, error) {
	return nil, certmagic.ErrNoRetry{Err: errors.New("no")}
}

// anyOwner is an issuer of a configuration.
type anyOwner struct{ c *parking.Configuration }

func (o anyOwner) Configuration() *parking.Configuration            { return o.c }
func (o anyOwner) Key() string                                      { return "k" }
func (o anyOwner) IsAlone() bool                                    { return true }
func (o anyOwner) IsOnDemand() bool                                 { return false }
func (o anyOwner) Stored(context.Context, string) *x509.Certificate { return nil }
func (o anyOwner) Storage() state.Store                             { return state.Store{} }

func (o anyOwner) Obtain(context.Context, string, time.Time) (done bool, err error) {
	return false, nil
}

// dueCertificate is a certificate that is to be renewed.
func dueCertificate(t *testing.T, name string) (certPEM, keyPEM []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: now.Add(-80 * 24 * time.Hour), NotAfter: now.Add(10 * 24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: encoded})
}
