package lab_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"github.com/dnspersist/caddy-dnspersist/internal/lab"
)

const zone = "example.test"

type world struct {
	t       *testing.T
	dns     *lab.DNS
	ca      *lab.CA
	client  *acme.Client
	account acme.Account

	replaces string // of orders to be made
}

func newWorld(t *testing.T, config lab.CAConfig) *world {
	t.Helper()
	w := bareWorld(t, config)
	w.register()
	return w
}

func bareWorld(t *testing.T, config lab.CAConfig) *world {
	t.Helper()
	d := newDNS(t, 2)
	d.AddZone(zone)
	config.Resolver = d.Resolver()
	ca, err := lab.NewCA(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ca.Close)
	return &world{t: t, dns: d, ca: ca, client: &acme.Client{
		Directory:    ca.Directory(),
		HTTPClient:   ca.HTTPClient(),
		Logger:       slog.New(slog.NewTextHandler(io.Discard, nil)),
		PollInterval: 5 * time.Millisecond,
		PollTimeout:  20 * time.Second,
	}}
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (w *world) register() {
	w.t.Helper()
	account, err := w.client.NewAccount(w.t.Context(), acme.Account{TermsOfServiceAgreed: true, PrivateKey: newKey(w.t)})
	if err != nil {
		w.t.Fatal(err)
	}
	w.account = account
}

func (w *world) record(host, more string) {
	w.dns.SetTXT(0, "_validation-persist."+host, "pebble.letsencrypt.org; accounturi="+w.account.Location+more)
}

func (w *world) order(names ...string) (acme.Order, error) {
	order := acme.Order{Replaces: w.replaces}
	for _, name := range names {
		order.Identifiers = append(order.Identifiers, acme.Identifier{Type: "dns", Value: name})
	}
	return w.client.NewOrder(w.t.Context(), w.account, order)
}

func offer(authz acme.Authorization) (acme.Challenge, bool) {
	i := slices.IndexFunc(authz.Challenges, func(c acme.Challenge) bool { return c.Type == "dns-persist-01" })
	if i < 0 {
		return acme.Challenge{}, false
	}
	return authz.Challenges[i], true
}

// start posts the challenges of an order.
func (w *world) start(order acme.Order) []acme.Authorization {
	w.t.Helper()
	var authzs []acme.Authorization
	for _, address := range order.Authorizations {
		authz, err := w.client.GetAuthorization(w.t.Context(), w.account, address)
		if err != nil {
			w.t.Fatal(err)
		}
		chal, ok := offer(authz)
		if !ok {
			w.t.Fatalf("no dns-persist-01 among %v", authz.Challenges)
		}
		if _, err := w.client.InitiateChallenge(w.t.Context(), w.account, chal); err != nil {
			w.t.Fatal(err)
		}
		authzs = append(authzs, authz)
	}
	return authzs
}

// obtain goes all the way.
func (w *world) obtain(names ...string) (*x509.Certificate, error) {
	w.t.Helper()
	order, err := w.order(names...)
	if err != nil {
		return nil, err
	}
	for _, authz := range w.start(order) {
		if _, err := w.client.PollAuthorization(w.t.Context(), w.account, authz); err != nil {
			return nil, err
		}
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: names}, newKey(w.t))
	if err != nil {
		return nil, err
	}
	if order, err = w.client.FinalizeOrder(w.t.Context(), w.account, order, csr); err != nil {
		return nil, err
	}
	chains, err := w.client.GetCertificateChain(w.t.Context(), w.account, order.Certificate)
	if err != nil {
		return nil, err
	}
	block, rest := pem.Decode(chains[0].ChainPEM)
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, err
	}
	intermediates := x509.NewCertPool()
	intermediates.AppendCertsFromPEM(rest)
	_, err = leaf.Verify(x509.VerifyOptions{Roots: w.ca.IssuanceRoots(), Intermediates: intermediates})
	return leaf, err
}

func (w *world) mustObtain(names ...string) *x509.Certificate {
	w.t.Helper()
	cert, err := w.obtain(names...)
	if err != nil {
		w.t.Fatal(err)
	}
	return cert
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

func problemType(err error) string {
	var problem acme.Problem
	if errors.As(err, &problem) {
		return strings.TrimPrefix(problem.Type, "urn:ietf:params:acme:error:")
	}
	return ""
}

func TestIssuance(t *testing.T) {
	w := newWorld(t, lab.CAConfig{Lifetime: 90 * time.Second, Profiles: map[string]time.Duration{"long": 1000 * time.Hour}})
	var mu sync.Mutex
	var kinds []string
	w.ca.OnEvent(func(e lab.Event) {
		mu.Lock()
		defer mu.Unlock()
		kinds = append(kinds, e.Kind)
	})
	w.record("www."+zone, "")
	for range 3 { // an order that names no profile gets the default one, always
		cert := w.mustObtain("www." + zone)
		if d := cert.NotAfter.Sub(cert.NotBefore).Round(5 * time.Second); d != 90*time.Second {
			t.Errorf("lifetime %s", d)
		}
	}
	if n := w.ca.Certificates(); n != 3 {
		t.Errorf("%d certificates", n)
	}
	orders := w.ca.Orders()
	if len(orders) != 3 || orders[0].Account != w.account.Location || !slices.Equal(orders[0].Identifiers, []string{"www." + zone}) {
		t.Errorf("orders %+v", orders)
	}
	if chals := w.ca.Challenges(); len(chals) != 3 || chals[0].Identifier != "www."+zone || chals[0].Account != w.account.Location {
		t.Errorf("challenges %+v", chals)
	}
	if f := w.ca.FailedValidations(); len(f) != 0 {
		t.Errorf("failures %+v", f)
	}
	if a := w.ca.Accounts(); !slices.Equal(a, []string{w.account.Location}) {
		t.Errorf("accounts %v", a)
	}
	for step, n := range map[string]int{"new-account": 1, "new-order": 3, "finalize": 3, "certificate": 3, "directory": 1} {
		if got := w.ca.Count(step); got != n {
			t.Errorf("%d requests of %s, want %d", got, step, n)
		}
	}
	for _, r := range w.ca.Requests("finalize", "authz") {
		if r.Status != 200 || !slices.Equal(r.Identifiers, []string{"www." + zone}) || r.Account != w.account.Location {
			t.Errorf("request %+v", r)
		}
	}
	if w.ca.PollGap("authz") <= 0 {
		t.Error("no gap between polls")
	}
	for _, kind := range []string{"order", "challenge", "valid", "certificate"} {
		eventually(t, "event "+kind, func() bool {
			mu.Lock()
			defer mu.Unlock()
			return slices.Contains(kinds, kind)
		})
	}
}

func TestAuthorizationsAreNotReused(t *testing.T) {
	w := newWorld(t, lab.CAConfig{})
	w.record(zone, "")
	w.mustObtain(zone)
	for range 300 { // Pebble alone reuses one of a hundred
		order, err := w.order(zone)
		if err != nil {
			t.Fatal(err)
		}
		if order.Status != "pending" {
			t.Fatalf("order is %s", order.Status)
		}
	}
	first := w.ca.Requests("authz")[0].Path
	authz, err := w.client.GetAuthorization(t.Context(), w.account, strings.TrimSuffix(w.ca.Directory(), "/dir")+first)
	if err != nil || authz.Identifier.Type != "dns" || authz.Status != "valid" {
		t.Errorf("authorization %+v, %v", authz, err)
	}
}

func TestMissingRecord(t *testing.T) {
	w := newWorld(t, lab.CAConfig{})
	for range 2 {
		if _, err := w.obtain(zone); err == nil {
			t.Fatal("issued without a record")
		}
	}
	failures := w.ca.FailedValidations()
	if len(failures) != 2 || failures[0].Identifier != zone || failures[0].Type != "dns-persist-01" || failures[0].Detail == "" || failures[0].Time.IsZero() {
		t.Errorf("failures %+v", failures)
	}
	// Nobody polls this one.
	order, err := w.order("a."+zone, "b."+zone)
	if err != nil {
		t.Fatal(err)
	}
	w.start(order)
	eventually(t, "failures without polls", func() bool { return len(w.ca.FailedValidations()) == 4 })
	if w.ca.Certificates() != 0 {
		t.Error("a certificate was issued")
	}
}

func TestWildcard(t *testing.T) {
	w := newWorld(t, lab.CAConfig{})
	w.record(zone, "")
	if _, err := w.obtain("*." + zone); err == nil {
		t.Fatal("issued without a policy")
	}
	if f := w.ca.FailedValidations(); len(f) != 1 || f[0].Identifier != "*."+zone {
		t.Errorf("failures %+v", f)
	}
	w.record(zone, "; policy=wildcard")
	w.mustObtain("*."+zone, zone)
	if c := w.ca.Challenges(); len(c) != 3 || c[0].Identifier != "*."+zone {
		t.Errorf("challenges %+v", c)
	}
}

func TestOfferAndMutations(t *testing.T) {
	w := newWorld(t, lab.CAConfig{})
	order, err := w.order(zone)
	if err != nil {
		t.Fatal(err)
	}
	get := func() acme.Authorization {
		t.Helper()
		authz, err := w.client.GetAuthorization(t.Context(), w.account, order.Authorizations[0])
		if err != nil {
			t.Fatal(err)
		}
		return authz
	}
	w.ca.SetOffer(false)
	if authz := get(); len(authz.Challenges) == 0 {
		t.Error("no challenges at all")
	} else if _, ok := offer(authz); ok {
		t.Error("offered")
	}
	w.ca.SetOffer(true)
	if _, ok := offer(get()); !ok {
		t.Error("not offered")
	}
	w.ca.MutateAuthz(func(m map[string]any) { m["status"] = "odd" })
	if s := get().Status; s != "odd" {
		t.Errorf("status %s", s)
	}
	w.ca.MutateAuthz(nil)
	if s := get().Status; s != "pending" {
		t.Errorf("status %s", s)
	}
	w.ca.MutateDirectory(func(m map[string]any) { delete(m, "renewalInfo") })
	defer w.ca.MutateDirectory(nil)
	response, err := w.ca.HTTPClient().Get(w.ca.Directory())
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || strings.Contains(string(body), "renewalInfo") || !strings.Contains(string(body), "newOrder") {
		t.Errorf("directory %s, %v", body, err)
	}
}

func TestForget(t *testing.T) {
	w := newWorld(t, lab.CAConfig{})
	w.record(zone, "")
	old := w.mustObtain(zone)
	w.ca.Forget()
	if _, err := w.order(zone); problemType(err) != "accountDoesNotExist" {
		t.Fatalf("order with a forgotten account: %v", err)
	}
	w.register()
	w.record(zone, "")
	w.mustObtain(zone)
	if w.ca.Certificates() != 2 || len(w.ca.Accounts()) != 2 {
		t.Errorf("%d certificates, accounts %v", w.ca.Certificates(), w.ca.Accounts())
	}
	if old == nil {
		t.Fatal("no certificate")
	}
}

func TestReplaces(t *testing.T) {
	w := newWorld(t, lab.CAConfig{})
	w.record(zone, "")
	cert := w.mustObtain(zone)
	id, err := acme.ARIUniqueIdentifier(cert)
	if err != nil {
		t.Fatal(err)
	}
	w.replaces = id
	w.mustObtain(zone)
	if orders := w.ca.Orders(); orders[1].Replaces != id || w.ca.Requests("finalize")[1].Replaces != id {
		t.Errorf("orders %+v", orders)
	}
	if _, err := w.order(zone); problemType(err) != "alreadyReplaced" {
		t.Errorf("replaced again: %v", err)
	}
}

func TestFaults(t *testing.T) {
	get := func(ctx context.Context, t *testing.T, w *world) (*http.Response, error) {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, w.ca.Directory(), nil)
		if err != nil {
			t.Fatal(err)
		}
		// Over a connection that was used before, a transport tries again on its own.
		transport := w.ca.HTTPClient().Transport.(*http.Transport).Clone()
		transport.DisableKeepAlives = true
		response, err := transport.RoundTrip(request)
		if err == nil {
			response.Body.Close()
		}
		return response, err
	}
	w := newWorld(t, lab.CAConfig{})

	t.Run("status", func(t *testing.T) {
		defer w.ca.ClearFaults()
		w.ca.Inject(lab.Fault{Step: "directory", Status: 503, RetryAfter: "7", Skip: 1, Times: 2})
		var got []int
		for range 4 {
			response, err := get(t.Context(), t, w)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, response.StatusCode)
			if response.StatusCode == 503 && response.Header.Get("Retry-After") != "7" {
				t.Error("no Retry-After")
			}
		}
		if !slices.Equal(got, []int{200, 503, 503, 200}) {
			t.Errorf("statuses %v", got)
		}
	})
	t.Run("rate limit", func(t *testing.T) {
		defer w.ca.ClearFaults()
		before := len(w.ca.Orders())
		w.ca.Inject(lab.Fault{Step: "new-order", Status: 429, Times: -1})
		if _, err := w.order(zone); problemType(err) != "rateLimited" {
			t.Errorf("error %v", err)
		}
		requests := w.ca.Requests("new-order")
		if last := requests[len(requests)-1]; !last.Faulted || last.Status != 429 || len(w.ca.Orders()) != before {
			t.Errorf("request %+v", last)
		}
	})
	t.Run("cut before", func(t *testing.T) {
		defer w.ca.ClearFaults()
		w.ca.Inject(lab.Fault{Step: "directory", CutBefore: true})
		if _, err := get(t.Context(), t, w); err == nil {
			t.Error("answered")
		}
		if _, err := get(t.Context(), t, w); err != nil {
			t.Error(err)
		}
	})
	t.Run("cut after", func(t *testing.T) {
		defer w.ca.ClearFaults()
		before := len(w.ca.Orders())
		w.ca.Inject(lab.Fault{Step: "new-order", CutAfter: true, Times: -1})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		done := make(chan error, 1)
		go func() { // acmez tries again until it is told to stop
			_, err := w.client.NewOrder(ctx, w.account, acme.Order{Identifiers: []acme.Identifier{{Type: "dns", Value: zone}}})
			done <- err
		}()
		eventually(t, "the order", func() bool { return len(w.ca.Orders()) > before })
		cancel()
		if err := <-done; err == nil {
			t.Error("answered")
		}
	})
	t.Run("hang", func(t *testing.T) {
		defer w.ca.ClearFaults()
		w.ca.Inject(lab.Fault{Step: "directory", Hang: time.Hour})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		before := w.ca.Count("directory")
		done := make(chan error, 1)
		go func() {
			_, err := get(ctx, t, w)
			done <- err
		}()
		eventually(t, "the request", func() bool { return w.ca.Count("directory") > before })
		cancel()
		if err := <-done; err == nil {
			t.Error("answered")
		}
		w.ca.Inject(lab.Fault{Step: "directory", Hang: time.Millisecond})
		if _, err := get(t.Context(), t, w); err == nil {
			t.Error("answered")
		}
	})
}

func TestDelays(t *testing.T) {
	w := newWorld(t, lab.CAConfig{})
	w.record(zone, "")
	const delay = 300 * time.Millisecond
	w.ca.SetValidationDelay(delay)
	w.ca.SetFinalizeDelay(delay)
	w.ca.SetRetryAfter("0")
	order, err := w.order(zone)
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	authzs := w.start(order)
	authz, err := w.client.GetAuthorization(t.Context(), w.account, order.Authorizations[0])
	if err != nil {
		t.Fatal(err)
	}
	if chal, _ := offer(authz); time.Since(begin) < delay/2 && (authz.Status != "pending" || chal.Status != "processing") {
		t.Errorf("authorization %s, challenge %s", authz.Status, chal.Status)
	}
	if _, err := w.client.PollAuthorization(t.Context(), w.account, authzs[0]); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(begin); d < delay {
		t.Errorf("valid after %s", d)
	}
	begin = time.Now()
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{zone}}, newKey(t))
	if err != nil {
		t.Fatal(err)
	}
	order, err = w.client.FinalizeOrder(t.Context(), w.account, order, csr)
	if err != nil || order.Certificate == "" {
		t.Fatalf("order %+v, %v", order, err)
	}
	if d := time.Since(begin); d < delay {
		t.Errorf("issued after %s", d)
	}
}

func TestEAB(t *testing.T) {
	secret := base64.RawURLEncoding.EncodeToString([]byte("0123456789abcdef0123456789abcdef"))
	w := bareWorld(t, lab.CAConfig{EAB: map[string]string{"key-1": secret}, RequireEAB: true})
	account := acme.Account{TermsOfServiceAgreed: true, PrivateKey: newKey(t)}
	if _, err := w.client.NewAccount(t.Context(), account); problemType(err) != "externalAccountRequired" {
		t.Fatalf("without a binding: %v", err)
	}
	if err := account.SetExternalAccountBinding(t.Context(), w.client, acme.EAB{KeyID: "key-1", MACKey: secret}); err != nil {
		t.Fatal(err)
	}
	var err error
	if w.account, err = w.client.NewAccount(t.Context(), account); err != nil {
		t.Fatal(err)
	}
	w.record(zone, "")
	w.mustObtain(zone)
}

func TestNonceReject(t *testing.T) {
	w := bareWorld(t, lab.CAConfig{NonceReject: 100})
	_, err := w.client.NewAccount(t.Context(), acme.Account{TermsOfServiceAgreed: true, PrivateKey: newKey(t)})
	if problemType(err) != "badNonce" {
		t.Fatalf("error %v", err)
	}
}

func TestIssuerNames(t *testing.T) {
	w := newWorld(t, lab.CAConfig{IssuerNames: []string{"ca.test"}, AlternateRoots: 1})
	w.dns.SetTXT(0, "_validation-persist."+zone, "ca.test; accounturi="+w.account.Location)
	w.mustObtain(zone)
}

// TestDeactivateWhileProcessing makes Pebble lock up, were it let.
func TestDeactivateWhileProcessing(t *testing.T) {
	w := newWorld(t, lab.CAConfig{})
	w.dns.SetDelay(0, 100*time.Millisecond)
	for range 3 {
		order, err := w.order(zone)
		if err != nil {
			t.Fatal(err)
		}
		w.start(order)
		if _, err := w.client.DeactivateAuthorization(t.Context(), w.account, order.Authorizations[0]); err != nil {
			t.Fatal(err)
		}
	}
	if f := w.ca.FailedValidations(); len(f) != 3 {
		t.Errorf("failures %+v", f)
	}
}

func TestManyAtOnce(t *testing.T) {
	w := newWorld(t, lab.CAConfig{})
	w.client.PollInterval = 50 * time.Millisecond
	w.record(zone, "; policy=wildcard")
	var wg sync.WaitGroup
	for range 30 {
		wg.Go(func() {
			if _, err := w.obtain(zone, "*."+zone); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := w.ca.Certificates(); n != 30 {
		t.Errorf("%d certificates", n)
	}
}

func TestClose(t *testing.T) {
	ca, err := lab.NewCA(lab.CAConfig{Resolver: "127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	ca.Inject(lab.Fault{Hang: time.Hour})
	done := make(chan error, 1)
	go func() {
		_, err := ca.HTTPClient().Get(ca.Directory())
		done <- err
	}()
	eventually(t, "the request", func() bool { return ca.Count("directory") == 1 })
	ca.Close()
	ca.Close()
	if err := <-done; err == nil {
		t.Error("answered")
	}
}
