package ca

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"slices"
	"sort"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"
)

// PreferredChain chooses among the chains that a CA offers, the first where
// nothing matches the preference.
func PreferredChain(chains []acme.Certificate, prefer certmagic.ChainPreference) acme.Certificate {
	chains = slices.Clone(chains)
	if prefer.Smallest != nil {
		sort.SliceStable(chains, func(i, j int) bool {
			if *prefer.Smallest {
				return len(chains[i].ChainPEM) < len(chains[j].ChainPEM)
			}
			return len(chains[i].ChainPEM) > len(chains[j].ChainPEM)
		})
	}
	for _, name := range prefer.AnyCommonName {
		for _, c := range chains {
			if slices.Contains(issuerNames(c.ChainPEM), name) {
				return c
			}
		}
	}
	for _, name := range prefer.RootCommonName {
		for _, c := range chains {
			if names := issuerNames(c.ChainPEM); len(names) > 0 && names[len(names)-1] == name {
				return c
			}
		}
	}
	return chains[0]
}

// issuerNames returns the common names of the issuers in a chain, the leaf's
// issuer first.
func issuerNames(chain []byte) []string {
	var names []string
	for {
		var block *pem.Block
		if block, chain = pem.Decode(chain); block == nil {
			return names
		}
		if cert, err := x509.ParseCertificate(block.Bytes); err == nil {
			names = append(names, cert.Issuer.CommonName)
		}
	}
}

// derBlocks joins the certificates of a PEM bundle.
func derBlocks(bundle []byte) []byte {
	var der []byte
	for {
		var block *pem.Block
		if block, bundle = pem.Decode(bundle); block == nil {
			return der
		}
		if block.Type == "CERTIFICATE" {
			der = append(der, block.Bytes...)
		}
	}
}

// Leaf returns the certificate at the beginning of a PEM bundle.
func Leaf(chain []byte) (*x509.Certificate, error) {
	certs, err := x509.ParseCertificates(derBlocks(chain))
	if err != nil {
		return nil, err
	}
	if len(certs) == 0 {
		return nil, errors.New("there is no certificate in it")
	}
	return certs[0], nil
}
