package dnspersist

import (
	"slices"
	"testing"
)

// All that a configuration has Caddy ask for is managed, whichever part of it does.
func TestNamesOfOtherParts(t *testing.T) {
	const ours = `{"module":"dns_persist"}`
	off, err := Open([]byte(`{"storage":{"module":"file_system","root":` + asJSON(t, t.TempDir()) + `},
		"admin":{"identity":{"identifiers":["Admin.example"],"issuers":[` + ours + `]}},
		"apps":{
			"tls":{"encrypted_client_hello":{"configs":[{"public_name":"Ech.example"}]},
				"automation":{"policies":[{"subjects":["other.example"],"issuers":[{"module":"internal"}]},{"issuers":[` + ours + `]}]}},
			"http":{"servers":{"a":{"listen":[":8443"],"routes":[{"match":[{"host":["site.example"]}],"handle":[
				{"handler":"subroute","routes":[{"handle":[{"handler":"reverse_proxy","transport":{"protocol":"http","tls":{"client_certificate_automate":"client.example"}}}]}]}]}]}}},
			"layer4":{"servers":{"b":{"routes":[{"handle":[{"handler":"proxy","upstreams":[{"tls":{"client_certificate_automate":"upstream.example"}},{"tls":{"client_certificate_automate":"other.example"}}]}]}]}}}}}`))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := off.Close(); err != nil {
			t.Error(err)
		}
	})
	want := []string{"admin.example", "client.example", "ech.example", "site.example", "upstream.example"}
	if got := off.Managed(); !slices.Equal(got, want) {
		t.Errorf("managed are %q, want %q", got, want)
	}
}
