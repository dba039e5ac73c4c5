package acmepersist_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
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

// A program without CertMagic and Caddy asks for a certificate, is told what it has to wait for, and asks again.
func ExampleHold() {
	ca, dns, stop := startLab()
	defer stop()
	dir, err := os.MkdirTemp("", "example-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	issuer := acmepersist.New(acmepersist.Config{
		CA:        ca.Directory(),
		Storage:   &certmagic.FileStorage{Path: dir},
		Transport: ca.HTTPClient().Transport,
		Checker:   propagation.NewChecker(propagation.Config{Resolvers: []string{dns.Resolver()}, Exchanger: dns.Exchanger()}),
		Settle:    100 * time.Millisecond,
	})
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{"www.example.test"}}, key)
	if err != nil {
		panic(err)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		panic(err)
	}

	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var seen *propagation.Report
	for {
		_, err := issuer.Obtain(ctx, csr, acmepersist.Request{Seen: seen})
		var hold *acmepersist.Hold
		switch {
		case err == nil:
			fmt.Println("there is a certificate")
			return
		case !errors.As(err, &hold):
			panic(err) // nobody knows when it passes: try again later
		}
		fmt.Println(hold.Reason+":", explain(hold))
		if hold.Reason.IsRecord() {
			dns.SetTXT(0, hold.Record.Name, hold.Record.Value) // as the owner of the domain would
		}
		if seen, err = hold.Wait(ctx); err != nil {
			panic(err)
		}
	}
	// Output:
	// record_absent: publish a TXT record at _validation-persist.www.example.test
	// there is a certificate
}

// explain says what a domain waits for, and who can end that.
func explain(hold *acmepersist.Hold) string {
	switch hold.Reason {
	case acmepersist.ReasonAbsent, acmepersist.ReasonWrong:
		return "publish a TXT record at " + hold.Record.Place()
	case acmepersist.ReasonPartial, acmepersist.ReasonConfirming:
		return "not every name server shows the record yet"
	case acmepersist.ReasonBlocked:
		return "DNS cannot be looked at: " + hold.Watch.Report.Summary()
	case acmepersist.ReasonUnsupported:
		return "take another challenge or issuer for this domain"
	case acmepersist.ReasonCADown:
		return "the CA is down; it is asked again at " + hold.Until.String()
	}
	return explainError(hold)
}

// explainError says what the errors in a Hold know beyond its reason.
func explainError(hold *acmepersist.Hold) string {
	var (
		publish    *acmepersist.PublishError
		budget     *acmepersist.BudgetError
		limited    *acmepersist.RateLimitedError
		notOffered *acmepersist.NotOfferedError
		account    *acmepersist.AccountError
		uri        *acmepersist.AccountURIError
		caa        *acmepersist.CAAError
		disagrees  *acmepersist.DisagreementError
		refused    *acmepersist.RefusedError
		processing *acmepersist.ProcessingError
		ok         = func(target any) bool { return errors.As(hold, target) }
	)
	switch {
	case hold.Reason == acmepersist.ReasonPublish && ok(&publish):
		return "the DNS provider is tried again at " + publish.RetryAt.String()
	case hold.Reason == acmepersist.ReasonBudget && ok(&budget):
		return fmt.Sprintf("the CA has refused the domain %d times: look at why", budget.Failed)
	case hold.Reason == acmepersist.ReasonRateLimited && ok(&limited):
		return "the CA explains its limit at " + limited.URL
	case hold.Reason == acmepersist.ReasonNotOffered && ok(&notOffered):
		return fmt.Sprintf("choose another CA: this one offers %v", notOffered.Offered)
	case hold.Reason == acmepersist.ReasonAccount && ok(&account):
		return "restore the account " + account.URL
	case hold.Reason == acmepersist.ReasonAccountURI && ok(&uri):
		return "does the CA's documentation say that records have to name " + uri.Expected + "?"
	case hold.Reason == acmepersist.ReasonCAA && ok(&caa):
		return "allow the CA by the CAA records at " + caa.At
	case hold.Reason == acmepersist.ReasonRejected && ok(&disagrees):
		return "the CA sees something else than this machine: " + disagrees.Report.Summary()
	case hold.Reason == acmepersist.ReasonRejected && ok(&refused):
		return "the CA has refused the record at " + refused.Name
	case hold.Reason == acmepersist.ReasonProcessing && ok(&processing):
		return "the CA is at work since " + processing.Since.String()
	}
	return hold.Error()
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
