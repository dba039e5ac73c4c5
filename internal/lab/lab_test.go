package lab_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"github.com/dnspersist/caddy-dnspersist/internal/lab"
)

const zone = "example.test"

type world struct {
	t       *testing.T
	dns     *lab.DNS
	ca      *lab.CA
	client  *acme.Client
	account acme.Account

	replaces string // of orders to be made
}

func newWorld(t *testing.T, config lab.CAConfig) *world {
	t.Helper()
	w := bareWorld(t, config)
	w.register()
	return w
}

func bareWorld(t *testing.T, config lab.CAConfig) *world {
	t.Helper()
	d := newDNS(t, 2)
	d.AddZone(zone)
	config.Resolver = d.Resolver()
	ca, err := lab.NewCA(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ca.Close)
	return &world{t: t, dns: d, ca: ca, client: &acme.Client{
		Directory:    ca.Directory(),
		HTTPClient:   ca.HTTPClient(),
		Logger:       slog.New(slog.NewTextHandler(io.Discard, nil)),
		PollInterval: 5 * time.Millisecond,
		PollTimeout:  20 * time.Second,
	}}
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (w *world) register() {
	w.t.Helper()
	account, err := w.client.NewAccount(w.t.Context(), acme.Account{TermsOfServiceAgreed: true, PrivateKey: newKey(w.t)})
	if err != nil {
		w.t.Fatal(err)
	}
	w.account = account
}

func (w *world) record(host, more string) {
	w.dns.SetTXT(0, "_validation-persist."+host, "pebble.letsencrypt.org; accounturi="+w.account.Location+more)
}

func (w *world) order(names ...string) (acme.Order, error) {
	order := acme.Order{Replaces: w.replaces}
	for _, name := range names {
		order.Identifiers = append(order.Identifiers, acme.Identifier{Type: "dns", Value: name})
	}
	return w.client.NewOrder(w.t.Context(), w.account, order)
}

func offer(authz acme.Authorization) (acme.Challenge, bool) {
	i := slices.IndexFunc(authz.Challenges, func(c acme.Challenge) bool { return c.Type == "dns-persist-01" })
	if i < 0 {
		return acme.Challenge{}, false
	}
	return authz.Challenges[i], true
}

// start posts the challenges of an order.
func (w *world) start(order acme.Order) []acme.Authorization {
	w.t.Helper()
	var authzs []acme.Authorization
	for _, address := range order.Authorizations {
		authz, err := w.client.GetAuthorization(w.t.Context(), w.account, address)
		if err != nil {
			w.t.Fatal(err)
		}
		chal, ok := offer(authz)
		if !ok {
			w.t.Fatalf("no dns-persist-01 among %v", authz.Challenges)
		}
		if _, err := w.client.InitiateChallenge(w.t.Context(), w.account, chal); err != nil {
			w.t.Fatal(err)
		}
		authzs = append(authzs, authz)
	}
	return authzs
}

// obtain goes all the way.
func (w *world) obtain(names ...string) (*x509.Certificate, error) {
	w.t.Helper()
	order, err := w.order(names...)
	if err != nil {
		return nil, err
	}
	for _, authz := range w.start(order) {
		if _, err := w.client.PollAuthorization(w.t.Context(), w.account, authz); err != nil {
			return nil, err
		}
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: names}, newKey(w.t))
	if err != nil {
		return nil, err
	}
	if order, err = w.client.FinalizeOrder(w.t.Context(), w.account, order, csr); err != nil {
		return nil, err
	}
	chains, err := w.client.GetCertificateChain(w.t.Context(), w.account, order.Certificate)
	if err != nil {
		return nil, err
	}
	block, rest := pem.Decode(chains[0].ChainPEM)
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, err
	}
	intermediates := x509.NewCertPool()
	intermediates.AppendCertsFromPEM(rest)
	_, err = leaf.Verify(x509.VerifyOptions{Roots: w.ca.IssuanceRoots(), Intermediates: intermediates})
	return leaf, err
}

func (w *world) mustObtain(names ...string) *x509.Certificate {
	w.t.Helper()
	cert, err := w.obtain(names...)
	if err != nil {
		w.t.Fatal(err)
	}
	return cert
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

func problemType(err error) string {
	var problem acme.Problem
	if errors.As(err, &problem) {
		return strings.TrimPrefix(problem.Type, "urn:ietf:params:acme:error:")
	}
	return ""
}
