package dnspersist

import (
	"crypto/x509"
	"errors"
	"net"
	"testing"

	"github.com/caddyserver/certmagic"
)

// Beside other issuers CertMagic has to go on trying.
func TestAddressInAChain(t *testing.T) {
	iss := &Issuer{rt: new(runtime)}
	iss.rt.magic = &certmagic.Config{Issuers: make([]certmagic.Issuer, 2)}
	_, err := iss.Issue(t.Context(), &x509.CertificateRequest{IPAddresses: []net.IP{net.IPv4(192, 0, 2, 1)}})
	var no certmagic.ErrNoRetry
	if errors.As(err, &no) {
		t.Fatalf("CertMagic gives up for all issuers: %v", err)
	}
}
