package acmepersist

import (
	"crypto/x509"
	"errors"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

// NamesFromCSR returns the DNS names of a CSR as they are sent in an order. Other
// names cannot be validated by this challenge.
func NamesFromCSR(csr *x509.CertificateRequest) ([]string, error) {
	for _, ip := range csr.IPAddresses {
		return nil, &UnsupportedNameError{ip.String(), errors.New("it is an IP address, the challenge validates DNS names only: use another issuer for it")}
	}
	if len(csr.EmailAddresses)+len(csr.URIs) > 0 {
		return nil, &UnsupportedNameError{csr.Subject.String(), errors.New("the request has email addresses or URIs, the challenge validates DNS names only")}
	}
	all := csr.DNSNames
	if len(all) == 0 && csr.Subject.CommonName != "" {
		all = []string{csr.Subject.CommonName}
	}
	if len(all) == 0 {
		return nil, errors.New("the certificate request has no name")
	}
	var names []string
	for _, n := range all {
		normal, err := record.Normalize(n)
		if err != nil {
			return nil, &UnsupportedNameError{n, err}
		}
		names = append(names, normal)
	}
	return names, nil
}
