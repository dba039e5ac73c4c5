package e2e

import (
	"context"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/certmagic"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/internal/e2e/harness"
)

// refused waits for the error of a name that can never be validated this way, and
// checks that nobody tries again.
func refused(e *harness.Env, name, reason string) {
	e.T.Helper()
	e.Eventually(harness.Soon, "the refusal of "+name, func() error {
		for _, l := range e.Logs("could not get certificate from issuer") {
			if l["identifier"] == name && strings.Contains(fmt.Sprint(l["error"]), reason) {
				return nil
			}
		}
		return fmt.Errorf("no entry")
	})
	for _, l := range e.Logs("will retry") {
		if strings.Contains(fmt.Sprint(l["error"]), name) {
			e.T.Errorf("CertMagic retries %s, which can never work", name)
		}
	}
}

func TestNamesThatCannotBeValidated(t *testing.T) {
	e := harness.New(t, harness.Options{})
	// 234 octets, one more than fits behind the label
	long := strings.Repeat(strings.Repeat("a", 46)+".", 4) + strings.Repeat("b", 33) + ".example.test"
	if len(long) != 234 {
		t.Fatalf("the long name has %d octets", len(long))
	}
	e.Load(e.Global() + e.Site("192.0.2.77, "+long, e.Block()))
	refused(e, "192.0.2.77", "IP address")
	refused(e, long, "234 octets")
	if n := len(e.CA.Requests("new-order")); n != 0 {
		t.Errorf("%d orders were made for names that cannot be validated", n)
	}
}

func TestInternationalNames(t *testing.T) {
	e := harness.New(t, harness.Options{})
	value := e.Value(e.Bind(), false)
	suffix := e.Name("x")[2:]
	for _, tc := range []struct{ written, ascii string }{
		{"bücher." + suffix, "xn--bcher-kva." + suffix},
		{"xn--mnchen-3ya." + suffix, "xn--mnchen-3ya." + suffix},
		{"straße." + suffix, "xn--strae-oqa." + suffix},
		{"UPPER." + suffix, "upper." + suffix},
	} {
		t.Run(tc.written, func(t *testing.T) {
			e.Load(e.Global() + e.Site(tc.written, e.Block()))
			e.Asked(tc.ascii)
			e.Publish(tc.ascii, value)
			cert := e.WaitTrusted(tc.ascii, harness.Soon)
			if len(cert.DNSNames) != 1 || cert.DNSNames[0] != tc.ascii {
				t.Errorf("the certificate is for %v, want %s", cert.DNSNames, tc.ascii)
			}
		})
	}
	if failed := e.CA.FailedValidations(); len(failed) != 0 {
		t.Errorf("failed validations: %v", failed)
	}
}

// Caddy never manages a name with a final dot, without a word; we say it at load.
func TestFinalDotIsWarnedOf(t *testing.T) {
	e := harness.New(t, harness.Options{})
	e.Load(e.Global() + e.Site(e.Name("dot")+".", e.Block()))
	e.Eventually(harness.Soon, "the warning", func() error {
		data, err := os.ReadFile(e.LogFile)
		if err == nil && !strings.Contains(string(data), "final dot") {
			err = fmt.Errorf("no entry")
		}
		return err
	})
}

func TestRevocationWithOurAccount(t *testing.T) {
	e := harness.New(t, harness.Options{})
	name := e.Name("revoked")
	e.Publish(name, e.Value(e.Bind(), false))
	e.Load(e.Global() + e.Site(name, e.Block()))
	cert := e.WaitTrusted(name, harness.Soon)
	iss := acmepersist.New(acmepersist.Config{CA: e.CA.Directory(), Storage: e.FileStorage(), Transport: e.CA.HTTPClient().Transport})
	resource := certmagic.CertificateResource{SANs: []string{name}, CertificatePEM: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})}
	for range 2 { // the second time it is revoked already
		if err := iss.Revoke(context.Background(), resource, 0); err != nil {
			t.Fatal(err)
		}
	}
	if n := e.CA.Count("revoke"); n != 2 {
		t.Errorf("the CA saw %d revocations, want 2", n)
	}
	if n := len(e.CA.Accounts()); n != 1 {
		t.Errorf("the CA has %d accounts, want 1", n)
	}
}

// The account's file, the state of names and finished orders are where docs/reference.md says.
func TestStorageLayout(t *testing.T) {
	e := harness.New(t, harness.Options{})
	name := e.Name("layout")
	e.Publish(name, e.Value(e.Bind(), false))
	e.Load(e.Global() + e.Site(name, e.Block()))
	e.WaitTrusted(name, harness.Soon)
	ca := certmagic.StorageKeys.Safe(acmepersist.IssuerKey(e.CA.Directory()))
	for _, want := range []string{"account.json", "ca.json", "names/_validation-persist." + name + ".json"} {
		if _, err := os.Stat(filepath.Join(e.Storage, "dns_persist", ca, filepath.FromSlash(want))); err != nil {
			t.Error(err)
		}
	}
}
