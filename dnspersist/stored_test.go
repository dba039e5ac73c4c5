package dnspersist

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"testing"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"
)

// A certificate whose key is another one's is removed, and nothing else.
func TestMismatchedCertificate(t *testing.T) {
	const issuer, domain = "ca.test-dir", "a.example"
	pair := func() (certificate, key []byte) {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{domain}}
		der, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
		if err != nil {
			t.Fatal(err)
		}
		if key, err = certmagic.PEMEncodePrivateKey(k); err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), key
	}
	certificate, key := pair()
	_, other := pair()
	cfg := &certmagic.Config{Storage: &certmagic.FileStorage{Path: t.TempDir()}}
	for what, tc := range map[string]struct {
		key     []byte
		removed bool
	}{"its own key": {key, false}, "another one": {other, true}, "no key at all": {[]byte("x"), false}} {
		for at, content := range map[string][]byte{
			certmagic.StorageKeys.SiteCert(issuer, domain): certificate, certmagic.StorageKeys.SitePrivateKey(issuer, domain): tc.key,
		} {
			if err := cfg.Storage.Store(t.Context(), at, content); err != nil {
				t.Fatal(err)
			}
		}
		if got := removeMismatched(t.Context(), zap.NewNop(), cfg, issuer, domain); got != tc.removed {
			t.Errorf("%s: removed %v, want %v", what, got, tc.removed)
		}
		if there := cfg.Storage.Exists(t.Context(), certmagic.StorageKeys.SiteCert(issuer, domain)); there == tc.removed {
			t.Errorf("%s: the certificate is there: %v", what, there)
		}
	}
}
