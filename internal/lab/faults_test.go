package lab_test

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"github.com/dnspersist/caddy-dnspersist/internal/lab"
)

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
