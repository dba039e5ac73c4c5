package dnspersist

import (
	"testing"

	"github.com/caddyserver/caddy/v2"
)

// An issuer that only Caddy's admin endpoint uses is loaded after all apps have started.
func TestIssuerOfTheAdminEndpointAlone(t *testing.T) {
	err := caddy.Load([]byte(`{"storage":{"module":"file_system","root":`+asJSON(t, t.TempDir())+`},
	"admin":{"listen":"127.0.0.1:0","config":{"persist":false},"identity":{"identifiers":["admin.example"],"issuers":[{"module":"dns_persist","ca":"https://127.0.0.1:1/dir"}]}},
	"apps":{"tls":{"automation":{"policies":[{"subjects":["other.example"],"issuers":[{"module":"internal"}]}]}}}}`), true)
	_ = caddy.Stop()
	if err != nil {
		t.Fatal(err)
	}
}
