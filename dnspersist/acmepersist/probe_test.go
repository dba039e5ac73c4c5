package acmepersist

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/caddyserver/certmagic"
)

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
