package dnspersist

import (
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddytls"
)

// A connection that goes silent is noticed well before an attempt at a certificate ends.
func TestTransportLooksAtItsConnections(t *testing.T) {
	iss := &Issuer{ACMEIssuer: new(caddytls.ACMEIssuer)}
	transport, err := iss.newTransport(caddy.Context{})
	if err != nil {
		t.Fatal(err)
	}
	if h := transport.HTTP2; h == nil || h.SendPingTimeout <= 0 || h.PingTimeout <= 0 || h.SendPingTimeout+h.PingTimeout > 40*time.Second || !transport.ForceAttemptHTTP2 {
		t.Errorf("HTTP/2 is set up as %+v", h)
	}
}
