package acmepersist_test

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
)

// overtaken checks that an error has a process come back at once for what another one has obtained.
func overtaken(t *testing.T, err error) {
	t.Helper()
	var hold *acmepersist.Hold
	if !errors.As(err, &hold) || hold.Reason != acmepersist.ReasonProcessing || time.Until(hold.Until) > 5*time.Second {
		t.Errorf("the error is %v, want a Hold of a second", err)
	}
}

// Two processes are at one order, because a lock was lost: one has the certificate, for its own key, and the
// other does not take that for its own.
func TestTwoProcessesAtOneOrder(t *testing.T) {
	t.Parallel()
	i := newIssuing(t)
	i.ca.SetValidationDelay(2 * time.Second)
	type result struct {
		cert *certmagic.IssuedCertificate
		key  *ecdsa.PrivateKey
		err  error
	}
	results := make(chan result, 2)
	first, second := i.newKey().(*ecdsa.PrivateKey), i.newKey().(*ecdsa.PrivateKey)
	issue := func(key *ecdsa.PrivateKey) {
		other := *i
		other.Issuer = i.another()
		other.Config.InlineProcessing = time.Minute
		other.Issuer = acmepersist.New(other.Config)
		cert, err := other.issueKey(t.Context(), issuedName, key)
		results <- result{cert, key, err}
	}
	go issue(first)
	i.waitFor("challenge", 1)
	go issue(second)
	certificates := 0
	for range 2 {
		r := <-results
		if r.err != nil {
			overtaken(t, r.err)
			continue
		}
		certificates++
		block, _ := pem.Decode(r.cert.Certificate)
		leaf, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		if !r.key.PublicKey.Equal(leaf.PublicKey) {
			t.Error("the certificate is for the other process's key")
		}
	}
	if orders := len(i.ca.Orders()); certificates != 1 || orders != 1 {
		t.Errorf("%d certificates of %d orders, want one of one", certificates, orders)
	}
	if failed := i.ca.FailedValidations(); len(failed) != 0 {
		t.Errorf("failed validations: %v", failed)
	}
	if left, _ := filepath.Glob(filepath.Join(i.dir, "dns_persist", "*", "orders", "*")); len(left) != 0 {
		t.Errorf("orders are left: %q", left)
	}
}
