package acmepersist_test

import (
	"cmp"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/internal/lab"
)

const issuedName = "www.example.test"

// issuing is an issuer at a CA of its own, with a record that stands.
type issuing struct {
	*acmepersist.Issuer
	t   *testing.T
	ca  *lab.CA
	dns *lab.DNS
	dir string
}

func newIssuing(t *testing.T) *issuing {
	ca, dns, stop := startLab()
	t.Cleanup(stop)
	i := &issuing{t: t, ca: ca, dns: dns, dir: t.TempDir()}
	i.Issuer = i.another()
	account, err := i.Account(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	dns.SetTXT(0, "_validation-persist."+issuedName, "pebble.letsencrypt.org; accounturi="+account.URL)
	return i
}

// another is an issuer with the same storage, as after a restart.
func (i *issuing) another() *acmepersist.Issuer {
	return acmepersist.New(acmepersist.Config{
		CA: i.ca.Directory(), Storage: &certmagic.FileStorage{Path: i.dir}, Transport: i.ca.HTTPClient().Transport,
		Checker:          propagation.NewChecker(propagation.Config{Resolvers: []string{i.dns.Resolver()}, Exchanger: i.dns.Exchanger()}),
		InlineProcessing: time.Second,
	})
}

// with goes on with an issuer that has another logger and storage, each unless it is nil.
func (i *issuing) with(logger *zap.Logger, storage certmagic.Storage) {
	cfg := i.Config
	cfg.Logger, cfg.Storage = cmp.Or(logger, cfg.Logger), cmp.Or(storage, cfg.Storage)
	i.Issuer = acmepersist.New(cfg)
}

func (i *issuing) issue(ctx context.Context) error { return i.issueFor(ctx, issuedName) }

func (i *issuing) issueFor(ctx context.Context, name string) error {
	i.t.Helper()
	_, err := i.issueKey(ctx, name, i.newKey())
	return err
}

func (i *issuing) newKey() crypto.Signer {
	i.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		i.t.Fatal(err)
	}
	return key
}

func (i *issuing) issueKey(ctx context.Context, name string, key crypto.Signer) (*certmagic.IssuedCertificate, error) {
	i.t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{name}}, key)
	if err != nil {
		i.t.Fatal(err)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		i.t.Fatal(err)
	}
	return i.Issue(ctx, csr)
}

// refuse makes an issuance fail with an error that has the parts.
func (i *issuing) refuse(parts ...string) {
	i.t.Helper()
	err := i.issue(i.t.Context())
	if err == nil {
		i.t.Fatalf("there is a certificate, want an error with %q", parts)
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			i.t.Fatalf("the error lacks %q: %v", p, err)
		}
	}
}

// state is what storage has of the name.
func (i *issuing) state() (state struct {
	Attempts  []time.Time
	NotBefore time.Time `json:"not_before"`
	Accepted  []struct{ Value string }
	Looked    string `json:"looked_status"`
},
) {
	i.t.Helper()
	data, err := os.ReadFile(i.file("names", "_validation-persist."+issuedName+".json"))
	if err != nil {
		i.t.Fatal(err)
	}
	if err := json.Unmarshal(data, &state); err != nil {
		i.t.Fatal(err)
	}
	return state
}

// file is the path of a file of the CA's folder.
func (i *issuing) file(parts ...string) string {
	i.t.Helper()
	folders, err := filepath.Glob(filepath.Join(i.dir, "dns_persist", "*"))
	if err != nil || len(folders) != 1 {
		i.t.Fatal(folders, err)
	}
	return filepath.Join(append(folders, parts...)...)
}

// decided issues until the CA shows that it has decided, and returns the error of then.
func (i *issuing) decided() error {
	i.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		err := i.issue(i.t.Context())
		if err == nil || !strings.Contains(err.Error(), "ca_processing") {
			return err
		}
		if time.Now().After(deadline) {
			i.t.Fatal(err)
		}
	}
}

// refusedLate has the CA validate a name for longer than an attempt waits, and fail.
func (i *issuing) refusedLate() {
	i.t.Helper()
	// the first name teaches what the CA offers, so that the order comes after the look
	account, err := i.Account(i.t.Context())
	if err != nil {
		i.t.Fatal(err)
	}
	i.dns.SetTXT(0, "_validation-persist.first.example.test", "pebble.letsencrypt.org; accounturi="+account.URL)
	if err := i.issueFor(i.t.Context(), "first.example.test"); err != nil {
		i.t.Fatal(err)
	}
	i.ca.SetValidationDelay(3 * time.Second)
	// the CA's resolver fails, our servers do not
	i.ca.MutateAuthz(func(map[string]any) { i.dns.SetMode(0, "servfail") })
	i.refuse("ca_processing")
	i.ca.MutateAuthz(nil)
	i.dns.SetMode(0, "normal")
}

// A CA that takes long and then refuses has refused: its reason is reported, its cache waited
// for, and no other order is made for it at once.
func TestRefusalAfterALongTime(t *testing.T) {
	t.Parallel()
	i := newIssuing(t)
	i.refusedLate()
	i.Issuer = i.another() // the process may have ended meanwhile
	err := i.decided()
	for _, part := range []string{"ca_disagrees", "2 name servers of example.test showed the record"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Fatalf("the error lacks %q: %v", part, err)
		}
	}
	if n := len(i.ca.Orders()); n != 2 {
		t.Errorf("%d orders were made, want one for each name", n)
	}
	if s := i.state(); len(s.Attempts) != 1 || !s.NotBefore.After(time.Now()) {
		t.Errorf("%d attempts are noted, and the next one not before %s", len(s.Attempts), s.NotBefore)
	}
	i.refuse("asked again after")
}

// A CA that no longer knows why it has failed an order is given another one.
func TestInvalidOrderWithoutReason(t *testing.T) {
	t.Parallel()
	i := newIssuing(t)
	i.refusedLate()
	i.ca.Inject(lab.Fault{Step: "authz", Status: 404, Type: "malformed", Detail: "expired authorization", Times: -1})
	for deadline := time.Now().Add(time.Minute); len(i.ca.Orders()) < 3; time.Sleep(100 * time.Millisecond) {
		if err := i.issue(t.Context()); err == nil || time.Now().After(deadline) {
			t.Fatalf("%d orders, the last error is %v", len(i.ca.Orders()), err)
		}
	}
	i.ca.ClearFaults()
	i.ca.SetValidationDelay(0)
	if err := i.issue(t.Context()); err != nil {
		t.Error(err)
	}
}

// What a CA has accepted that took long is noted, or nobody would look at the record daily.
func TestAcceptedAfterALongTime(t *testing.T) {
	t.Parallel()
	i := newIssuing(t)
	i.ca.SetValidationDelay(3 * time.Second)
	i.refuse("ca_processing")
	i.Issuer = i.another()
	if err := i.decided(); err != nil {
		t.Fatal(err)
	}
	if s := i.state(); len(s.Accepted) != 1 || len(s.Attempts) != 0 {
		t.Errorf("accepted is %v and attempts %v, want one value and none", s.Accepted, s.Attempts)
	}
	if n := len(i.ca.Orders()); n != 1 {
		t.Errorf("%d orders were made, want 1", n)
	}
}

// A CA that refuses to finalize is quoted, and not asked for ten minutes.
func TestFinalizeRefused(t *testing.T) {
	t.Parallel()
	i := newIssuing(t)
	i.ca.Inject(lab.Fault{Step: "finalize", Status: 403, Type: "unauthorized", Detail: "policy forbids this name", Times: -1})
	i.refuse("finalizing the order", "policy forbids this name")
	if n := i.ca.Count("finalize"); n != 2 {
		t.Errorf("it was asked %d times, want 2", n)
	}
}

// A CA that puts a validation off has validated nothing, which costs nothing of the budget.
func TestPutOffCostsNoAttempt(t *testing.T) {
	t.Parallel()
	i := newIssuing(t)
	i.ca.Inject(lab.Fault{Step: "challenge", Status: 503, RetryAfter: "600", Times: 5})
	for range 5 {
		i.refuse("the CA asks to wait until")
	}
	if s := i.state(); len(s.Attempts) != 0 {
		t.Errorf("%d attempts are counted, want none", len(s.Attempts))
	}
	if err := i.issue(t.Context()); err != nil {
		t.Error(err)
	}
}

// An attempt that is cancelled does not go on asking the CA.
func TestCancelledWhileValidating(t *testing.T) {
	t.Parallel()
	i := newIssuing(t)
	i.ca.SetValidationDelay(time.Hour)
	i.InlineProcessing = time.Minute
	i.ca.Inject(lab.Fault{Step: "authz", Status: 503, RetryAfter: "100", Times: -1, Skip: 3})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- i.issue(ctx) }()
	for deadline := time.Now().Add(time.Minute); i.ca.Count("authz") < 4; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the CA is not asked what it has decided")
		}
	}
	cancel()
	select {
	case err := <-done:
		if err == nil {
			t.Error("there is a certificate")
		}
	case <-time.After(20 * time.Second):
		t.Error("20 s after it was cancelled it still goes on")
	}
}
