package acmepersist

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/caddyserver/certmagic"
)

// A probe asks the CA now, also where its directory is known: one that is down is reported, with what it has said before.
func TestProbeOfACAThatIsDown(t *testing.T) {
	isDown := false
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if isDown {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		_, _ = w.Write([]byte(`{"newNonce": "https://ca.example/nonce", "newAccount": "https://ca.example/account", "newOrder": "https://ca.example/order",
			"meta": {"caaIdentities": ["ca.example"], "accountHashPrefix": "https://ca.example/h/", "issuerDomainNames": ["ca.example"]}}`))
	}))
	t.Cleanup(s.Close)
	transport := NewTransport()
	transport.TLSClientConfig = s.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
	iss := New(Config{CA: s.URL, Transport: transport, Storage: &certmagic.FileStorage{Path: t.TempDir()}})
	for _, isDown = range []bool{false, false, true, false} {
		p, err := iss.Probe(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if p.Offered != OfferedYes || strings.Contains(p.Problem, "502") != isDown || (p.Problem != "") != isDown {
			t.Errorf("with the CA down (%t): offered %s, problem %q", isDown, p.Offered, p.Problem)
		}
	}
}

// Where a directory cannot tell, a probe has what is publicly known of the CA, and does not take it
// for the CA's answer.
func TestProbeOfAKnownCA(t *testing.T) {
	const known, unknown = "https://acme-v02.api.letsencrypt.org/directory", "https://ca.example/directory"
	meta := ""
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`{"newNonce": "https://ca.example/nonce", "newAccount": "https://ca.example/account",
			"newOrder": "https://ca.example/order", "meta": {"caaIdentities": ["ca.example"]` + meta + `}}`))
	}))
	t.Cleanup(s.Close)
	probe := func(directory string) Probe {
		t.Helper()
		transport := NewTransport()
		transport.TLSClientConfig = s.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
		transport.TLSClientConfig.InsecureSkipVerify = true
		transport.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, s.Listener.Addr().String())
		}
		p, err := New(Config{CA: directory, Transport: transport, Storage: &certmagic.FileStorage{Path: t.TempDir()}}).Probe(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	if p := probe(known); p.Offered != OfferedUnknown || p.Known == nil || p.Known.Name != "Let's Encrypt production" || p.Known.Offered != OfferedNo {
		t.Errorf("of a known CA: %+v, %+v", p, p.Known)
	}
	if p := probe(unknown); p.Offered != OfferedUnknown || p.Known != nil {
		t.Errorf("of another CA: %+v", p)
	}
	meta = `, "accountHashPrefix": "https://ca.example/h/", "issuerDomainNames": ["ca.example"]`
	if p := probe(known); p.Known != nil {
		t.Errorf("of one that tells: %+v", p)
	}
}
