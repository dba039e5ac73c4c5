package acmepersist

import (
	"crypto/rand"
	"crypto/x509"
	"errors"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/internal/memorystorage"
)

// trial is an issuer between fakes, which tries to get a certificate for one domain.
type trial struct {
	*Issuer
	t       *testing.T
	ca      *fakeCA
	dns     *fakeDNS
	storage *memorystorage.Storage
	logs    *observer.ObservedLogs
	csr     *x509.CertificateRequest
}

func newTrial(t *testing.T, options ...func(*Config)) *trial {
	t.Helper()
	core, logs := observer.New(zap.DebugLevel)
	r := &trial{t: t, ca: newFakeCA(), dns: newFakeDNS(), storage: memorystorage.New(), logs: logs}
	cfg := Config{
		CA: fakeDirectory, Storage: r.storage, Transport: r.ca, Logger: zap.New(core),
		Checker: propagation.NewChecker(propagation.Config{Resolvers: []string{"192.0.2.53"}, Exchanger: r.dns}),
	}
	for _, o := range options {
		o(&cfg)
	}
	r.Issuer = New(cfg)
	r.wants("www.example.test")
	return r
}

// wants has the trial be about a domain.
func (r *trial) wants(domain string) {
	r.t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{domain}}, newTestKey())
	if err == nil {
		r.csr, err = x509.ParseCertificateRequest(der)
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

// knowsTheCA has the issuer know what the CA offers, so that the order comes after the look.
func (r *trial) knowsTheCA() {
	r.t.Helper()
	r.wants("first.example.test")
	r.dns.set("_validation-persist.first.example.test", wwwValue)
	r.succeeds()
	r.wants("www.example.test")
	r.ca.asked()
}

// hasCertificate has CertMagic keep a certificate that is to be renewed.
func (r *trial) hasCertificate(age, left time.Duration) {
	r.t.Helper()
	now := time.Now()
	chain := r.ca.certificate(nil, now.Add(-age), now.Add(left))
	if err := r.storage.Store(r.t.Context(), certmagic.StorageKeys.SiteCert(r.IssuerKey(), "www.example.test"), chain); err != nil {
		r.t.Fatal(err)
	}
}

func (r *trial) obtain(req Request) error {
	cert, err := r.Obtain(r.t.Context(), r.csr, req)
	if err == nil && len(cert.Certificate) == 0 {
		r.t.Error("there is neither a certificate nor an error")
	}
	return err
}

// succeeds wants a certificate.
func (r *trial) succeeds() {
	r.t.Helper()
	if err := r.obtain(Request{}); err != nil {
		r.t.Fatalf("no certificate: %v", err)
	}
}

// fails wants an error.
func (r *trial) fails() error {
	r.t.Helper()
	err := r.obtain(Request{})
	if err == nil {
		r.t.Fatal("there is a certificate")
	}
	return err
}

// holds wants a Hold for a reason.
func (r *trial) holds(reason Reason) *Hold {
	r.t.Helper()
	return r.isHold(r.fails(), reason)
}

func (r *trial) isHold(err error, reason Reason) *Hold {
	r.t.Helper()
	var hold *Hold
	if !errors.As(err, &hold) {
		r.t.Fatalf("the error is not a Hold: %v", err)
	}
	if hold.Reason != reason {
		r.t.Fatalf("it waits for %s, want %s: %v", hold.Reason, reason, err)
	}
	return hold
}

// waits wants a Hold to last that long from now.
func (r *trial) waits(h *Hold, want time.Duration) {
	r.t.Helper()
	if got := time.Until(h.Until); (got - want).Abs() > time.Second {
		r.t.Errorf("it waits %s, want %s", got, want)
	}
}

// asked wants the CA to have been asked for these steps since the last look at them.
func (r *trial) asked(want string) {
	r.t.Helper()
	if got := r.ca.asked(); got != want {
		r.t.Errorf("the CA was asked for\n\t%s, want\n\t%s", got, want)
	}
}

// name is what storage remembers of www.example.test.
func (r *trial) name() state.Name {
	r.t.Helper()
	name, err := r.Issuer.ca.Store.Name(r.t.Context(), wwwName)
	if err != nil {
		r.t.Fatal(err)
	}
	return name
}

// kept is the order that is kept for www.example.test.
func (r *trial) kept() (state.Order, bool) {
	r.t.Helper()
	order, found, err := r.Issuer.ca.Store.Order(r.t.Context(), "www.example.test")
	if err != nil {
		r.t.Fatal(err)
	}
	return order, found
}
