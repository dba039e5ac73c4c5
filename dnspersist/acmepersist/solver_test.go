package acmepersist_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
)

// A solver makes no record known before the CA has confirmed the account that it names.
func TestSolverChecksTheAccount(t *testing.T) {
	t.Parallel()
	ca, _, stop := startLab()
	defer stop()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	client := &acme.Client{Directory: ca.Directory(), HTTPClient: ca.HTTPClient()}
	account, err := client.NewAccount(t.Context(), acme.Account{TermsOfServiceAgreed: true, PrivateKey: key})
	if err != nil {
		t.Fatal(err)
	}
	substituted := account
	substituted.Location += "0"
	moved := &acme.Client{Directory: ca.Directory(), HTTPClient: &http.Client{Transport: redirecting{ca.HTTPClient().Transport, account.Location}}}
	challenge := acme.Challenge{Type: acmepersist.ChallengeType, IssuerDomainNames: []string{"ca.example"}, Identifier: acme.Identifier{Type: "dns", Value: "example.test"}}
	present := func(url string, check func(context.Context) error) (int, error) {
		core, logs := observer.New(zap.InfoLevel)
		solver := &acmepersist.Solver{AccountURL: url, CheckAccount: check, Logger: zap.New(core)}
		err := solver.Present(t.Context(), challenge)
		return logs.Len(), err
	}

	check := acmepersist.AccountCheck(client, account)
	for range 3 {
		if said, err := present(account.Location, check); err != nil || said != 1 {
			t.Errorf("the account that is the CA's: %v, %d records said", err, said)
		}
	}
	if n := ca.Count("account"); n != 1 {
		t.Errorf("the CA was asked %d times for the account, want once", n)
	}
	for name, tt := range map[string]struct {
		url   string
		check func(context.Context) error
		want  string
	}{
		"no check":          {account.Location, nil, "no CheckAccount"},
		"another account":   {substituted.Location, acmepersist.AccountCheck(client, substituted), "not confirmed"},
		"one that has gone": {account.Location + "1", acmepersist.AccountCheck(moved, moving(account, "1")), "not confirmed"},
	} {
		if said, err := present(tt.url, tt.check); err == nil || !strings.Contains(err.Error(), tt.want) || said != 0 {
			t.Errorf("%s: %v, %d records said", name, err, said)
		}
	}
	if _, err := client.UpdateAccount(t.Context(), acme.Account{Status: acme.StatusDeactivated, Location: account.Location, PrivateKey: key}); err != nil {
		t.Fatal(err)
	}
	var lost *acmepersist.AccountError
	if said, err := present(account.Location, acmepersist.AccountCheck(client, account)); !errors.As(err, &lost) || said != 0 {
		t.Errorf("a deactivated account: %v, %d records said", err, said)
	}
}

func moving(a acme.Account, suffix string) acme.Account {
	a.Location += suffix
	return a
}

// redirecting is a CA that redirects another account's URL to one that is valid.
type redirecting struct {
	http.RoundTripper
	to string
}

func (r redirecting) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.String() == r.to+"1" {
		return &http.Response{
			StatusCode: http.StatusTemporaryRedirect, Header: http.Header{"Location": {r.to}}, Body: http.NoBody, Request: req,
		}, nil
	}
	return r.RoundTripper.RoundTrip(req)
}
