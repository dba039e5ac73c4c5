package acmepersist

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"slices"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/site"
)

// storeCertificate puts a certificate into the issuer's storage.
func storeCertificate(t *testing.T, iss *Issuer, name string, ends time.Time) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: ends.Add(-90 * 24 * time.Hour), NotAfter: ends, DNSNames: []string{name}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	chain := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err := iss.Storage.Store(t.Context(), certmagic.StorageKeys.SiteCert(IssuerKey(iss.CA), name), chain); err != nil {
		t.Fatal(err)
	}
}

// A wildcard that was tried once does not decide what a name's record has to be when nobody
// renews it.
func TestRenewedIdentifiers(t *testing.T) {
	const plain, wild = "a.example", "*.a.example"
	day := 24 * time.Hour
	for name, tt := range map[string]struct {
		served []string
		ends   map[string]time.Duration
		policy string
		want   []string
	}{
		"both":                        {[]string{plain, wild}, map[string]time.Duration{plain: day, wild: day}, "", []string{wild, plain}},
		"served no more":              {[]string{plain}, map[string]time.Duration{plain: day, wild: day}, "", []string{plain}},
		"a policy for all names":      {[]string{plain, wild}, map[string]time.Duration{plain: day}, "", []string{plain}},
		"the wildcard's has run out":  {[]string{plain, wild}, map[string]time.Duration{plain: day, wild: -day}, "", []string{plain}},
		"no certificate":              {[]string{plain, wild}, nil, "", []string{wild, plain}},
		"policy exact":                {[]string{plain, wild}, nil, site.PolicyExact, []string{plain}},
		"nothing is served":           {nil, map[string]time.Duration{plain: day}, "", nil},
		"policy exact, wildcard only": {[]string{wild}, map[string]time.Duration{wild: day}, site.PolicyExact, nil},
	} {
		iss := New(Config{CA: "https://ca.test/dir", Storage: &certmagic.FileStorage{Path: t.TempDir()}, Policy: tt.policy})
		for id, in := range tt.ends {
			storeCertificate(t, iss, id, time.Now().Add(in))
		}
		serving := func(id string) *Issuer {
			if slices.Contains(tt.served, id) {
				return iss
			}
			return nil
		}
		got := renewed(t.Context(), []string{wild, plain}, serving)
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
		if len(got) > 0 && strictest(got) != got[0] {
			t.Errorf("%s: the record is for %s", name, strictest(got))
		}
	}
}
