package acmepersist_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"os"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/internal/lab"
)

// startLab starts a CA and name servers on this machine, in place of real ones.
func startLab() (ca *lab.CA, dns *lab.DNS, stop func()) {
	dns, err := lab.NewDNS(2)
	if err != nil {
		panic(err)
	}
	dns.AddZone("example.test")
	if ca, err = lab.NewCA(lab.CAConfig{Resolver: dns.Resolver()}); err != nil {
		panic(err)
	}
	return ca, dns, func() { ca.Close(); dns.Close() }
}

// A program with CertMagic gets a certificate without Caddy: the issuer takes the place
// of certmagic.ACMEIssuer.
func ExampleIssuer() {
	ca, dns, stop := startLab()
	defer stop()
	dir, err := os.MkdirTemp("", "example-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	storage := &certmagic.FileStorage{Path: dir}

	issuer := acmepersist.New(acmepersist.Config{
		CA:        ca.Directory(),
		Storage:   storage,
		Transport: ca.HTTPClient().Transport, // it trusts the lab's CA; not needed with a public one
		Checker:   propagation.NewChecker(propagation.Config{Resolvers: []string{dns.Resolver()}, Exchanger: dns.Exchanger()}),
	})

	// the record names the account, so that comes first; somebody publishes the record once
	ctx := context.Background()
	account, err := issuer.Account(ctx)
	if err != nil {
		panic(err)
	}
	dns.SetTXT(0, "_validation-persist.www.example.test", "pebble.letsencrypt.org; accounturi="+account.URL)

	var magic *certmagic.Config
	cache := certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert: func(certmagic.Certificate) (*certmagic.Config, error) { return magic, nil },
	})
	defer cache.Stop()
	magic = certmagic.New(cache, certmagic.Config{Storage: storage, Issuers: []certmagic.Issuer{issuer}})
	if err := magic.ManageSync(ctx, []string{"www.example.test"}); err != nil {
		panic(err)
	}
	cert, err := magic.CacheManagedCertificate(ctx, "www.example.test")
	if err != nil {
		panic(err)
	}
	fmt.Println("certificate for", cert.Names)
	// Output: certificate for [www.example.test]
}

// A program that drives acmez itself registers the solver under the challenge's type.
func ExampleSolver() {
	ca, dns, stop := startLab()
	defer stop()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	client := acmez.Client{Client: &acme.Client{Directory: ca.Directory(), HTTPClient: ca.HTTPClient()}}
	account, err := client.NewAccount(ctx, acme.Account{TermsOfServiceAgreed: true, PrivateKey: key})
	if err != nil {
		panic(err)
	}
	client.ChallengeSolvers = map[string]acmez.Solver{
		acmepersist.ChallengeType: &acmepersist.Solver{
			AccountURL:   account.Location,
			CheckAccount: acmepersist.AccountCheck(client.Client, account), // before a record is made known
			Wildcard:     func(string) bool { return false },
			Checker:      propagation.NewChecker(propagation.Config{Resolvers: []string{dns.Resolver()}, Exchanger: dns.Exchanger()}),
			Settle:       100 * time.Millisecond,
		},
	}
	// published by somebody, once
	dns.SetTXT(0, "_validation-persist.api.example.test", "pebble.letsencrypt.org; accounturi="+account.Location)

	certKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	certs, err := client.ObtainCertificateForSANs(ctx, account, certKey, []string{"api.example.test"})
	if err != nil {
		panic(err)
	}
	fmt.Println("chains:", len(certs))
	// Output: chains: 1
}
