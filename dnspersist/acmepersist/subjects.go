package acmepersist

import (
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/site"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

// NameFromCSR returns the DNS name of a CSR as it is sent in an order. CertMagic asks for one name at a time. Other
// names cannot be validated by this challenge.
func NameFromCSR(csr *x509.CertificateRequest) (string, error) {
	for _, ip := range csr.IPAddresses {
		return "", &site.UnsupportedNameError{Name: ip.String(), Err: errors.New("it is an IP address, the challenge validates DNS names only: use another issuer for it")}
	}
	if len(csr.EmailAddresses)+len(csr.URIs) > 0 {
		return "", &site.UnsupportedNameError{Name: csr.Subject.String(), Err: errors.New("the request has email addresses or URIs, the challenge validates DNS names only")}
	}
	all := csr.DNSNames
	if len(all) == 0 && csr.Subject.CommonName != "" {
		all = []string{csr.Subject.CommonName}
	}
	if len(all) != 1 {
		return "", fmt.Errorf("the certificate request is for %d names, and each name has a certificate of its own: request one for each", len(all))
	}
	normal, err := record.Normalize(all[0])
	if err != nil {
		return "", &site.UnsupportedNameError{Name: all[0], Err: err}
	}
	return normal, nil
}
