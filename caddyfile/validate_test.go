package caddyfile_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/caddyserver/caddy/v2"
)

// validate does what `caddy validate` does, with a storage of its own.
func validate(t *testing.T, config, storage string) error {
	t.Helper()
	var raw map[string]any
	if err := json.Unmarshal([]byte(config), &raw); err != nil {
		t.Fatal(err)
	}
	raw["storage"] = map[string]any{"module": "file_system", "root": storage}
	raw["admin"] = map[string]any{"disabled": true, "config": map[string]any{"persist": false}}
	raw["logging"] = map[string]any{"logs": map[string]any{"default": map[string]any{"level": "ERROR"}}}
	out, err := json.Marshal(raw)
	if err != nil {
		t.Fatal(err)
	}
	var cfg caddy.Config
	if err := caddy.StrictUnmarshalJSON(out, &cfg); err != nil {
		return err
	}
	return caddy.Validate(&cfg)
}

func validateCaddyfile(t *testing.T, input string) error {
	t.Helper()
	config, _, err := adapt(input)
	if err != nil {
		t.Fatal(err)
	}
	return validate(t, config, t.TempDir())
}

func TestValidate(t *testing.T) {
	t.Setenv("DNSPERSIST_TEST_CA", "https://ca.example/directory")
	t.Setenv("DNSPERSIST_TEST_BAD", "not a url")
	for name, test := range map[string]struct{ input, want string }{
		"directive":      {"example.com {\n\tdns_persist\n}", ""},
		"placeholder":    {"example.com {\n\tdns_persist {env.DNSPERSIST_TEST_CA} {\n\t\taccount_url {env.DNSPERSIST_TEST_CA}\n\t}\n}", ""},
		"global ports":   {"{\n\thttp_port 8080\n\thttps_port 8443\n\tcert_issuer dns_persist\n}\nexample.com {\n\trespond ok\n}", ""},
		"bind":           {"{\n\tdefault_bind 192.0.2.1\n}\nexample.com {\n\tdns_persist\n}", ""},
		"chain":          {"{\n\tcert_issuer dns_persist\n\tcert_issuer acme\n}\nexample.com {\n\tdns_persist\n}", ""},
		"chain internal": {"{\n\tcert_issuer dns_persist\n\tcert_issuer internal\n}\nexample.com {\n\tdns_persist\n}", ""},
		"tls resolvers":  {"{\n\ttls_resolvers 192.0.2.53\n}\nexample.com {\n\tdns_persist {\n\t\tcheck recursive\n\t}\n}", ""},
		"beside email":   {"example.com {\n\tdns_persist\n\ttls me@example.com\n}", ""},

		"twice":           {"example.com {\n\tdns_persist\n\tdns_persist\n}", "two dns_persist issuers for the same site"},
		"beside issuer":   {"example.com {\n\tdns_persist\n\ttls {\n\t\tissuer dns_persist\n\t}\n}", "two dns_persist issuers for the same site"},
		"bad placeholder": {"example.com {\n\tdns_persist {\n\t\taccount_url {env.DNSPERSIST_TEST_BAD}\n\t}\n}", "account_url:"},
		"no resolvers":    {"example.com {\n\tdns_persist {\n\t\tcheck recursive\n\t}\n}", "there are no resolvers to ask"},
		"acme_ca by http": {"{\n\tacme_ca http://ca.example/directory\n}\nexample.com {\n\tdns_persist\n}", "is not encrypted"},
	} {
		t.Run(name, func(t *testing.T) { wantError(t, validateCaddyfile(t, test.input+"\n"), test.want) })
	}
}

const rfc2136 = `{"name": "rfc2136", "key_name": "caddy.", "key": "aHVzaA==", "server": "192.0.2.53:53"}`

func TestValidateJSON(t *testing.T) {
	for name, test := range map[string]struct{ fields, want string }{
		"plain":               {`"policy": "exact"`, ""},
		"challenges":          {`"challenges": {"http": {"disabled": true}, "tls-alpn": {"alternate_port": 8443}, "bind_host": "192.0.2.1"}`, ""},
		"resolvers":           {`"challenges": {"dns": {"resolvers": ["192.0.2.53"]}}, "dns": {"check": "recursive"}`, ""},
		"test_ca":             {`"test_ca": "https://staging.example/directory"`, "a record names one CA and one account"},
		"publish":             {`"dns": {"publish": "always"}`, "dns.publish:"},
		"no provider":         {`"dns": {"publish": "once"}`, "dns.publish is once, but no DNS provider is configured: add dns <provider>"},
		"naked acme_dns":      {`"challenges": {"dns": {}}, "dns": {"publish": "keep"}`, "which a plugin cannot reach"},
		"provider":            {`"dns": {"provider": ` + rfc2136 + `}, "persist_for": "720h"`, ""},
		"acme_dns":            {`"challenges": {"dns": {"provider": ` + rfc2136 + `}}, "dns": {"publish": "once"}`, ""},
		"no name":             {`"dns": {"provider": {"key": "hush"}}`, "loading the DNS provider"},
		"unknown provider":    {`"dns": {"provider": {"name": "nonsense", "key": "hush"}}`, "loading the DNS provider nonsense"},
		"bad provider":        {`"dns": {"provider": {"name": "rfc2136", "server": "192.0.2.53:53"}}`, "dns.providers.rfc2136: invalid configuration: rfc2136 needs key_name, key and server"},
		"delegated":           {`"dns": {"provider": ` + rfc2136 + `, "delegate_to": "Certs.Example.NET."}`, ""},
		"delegated badly":     {`"dns": {"delegate_to": "*.example.net"}`, "dns.delegate_to: \"*.example.net\" is not the name of a zone of yours"},
		"overridden badly":    {`"dns": {"override_domain": "_validation-persist.example.net"}`, "dns.override_domain: \"_validation-persist.example.net\" begins with _validation-persist"},
		"two places":          {`"dns": {"delegate_to": "a.example", "override_domain": "b.example"}`, "dns.delegate_to and dns.override_domain are both set"},
		"unseen":              {`"dns": {"provider": ` + rfc2136 + `, "check": "none"}`, "publishing needs authoritative"},
		"unseen, never":       {`"dns": {"provider": ` + rfc2136 + `, "check": "none", "publish": "never"}`, ""},
		"end, once":           {`"dns": {"provider": ` + rfc2136 + `, "publish": "once"}, "persist_for": "720h"`, "persist_for needs dns.publish keep"},
		"end, by hand":        {`"persist_for": "720h"`, "persist_for needs dns.publish keep"},
		"end, acme_dns":       {`"challenges": {"dns": {"provider": ` + rfc2136 + `}}, "persist_for": "720h"`, "persist_for needs dns.publish keep"},
		"short end":           {`"dns": {"provider": ` + rfc2136 + `}, "persist_for": "1h"`, "persist_for is 1h0m0s, less than 24h0m0s"},
		"ttl":                 {`"dns": {"ttl": 1500000000}`, "dns.ttl is 1.5s: it has to be whole seconds"},
		"long ttl":            {`"dns": {"ttl": "999999h"}`, "more than DNS can express"},
		"policy":              {`"policy": "star"`, `policy: "star" is not one of auto, exact, wildcard`},
		"check":               {`"dns": {"check": "maybe"}`, "dns.check:"},
		"on_account_lost":     {`"on_account_lost": "ignore"`, "on_account_lost:"},
		"max_parallel_orders": {`"max_parallel_orders": -1`, "max_parallel_orders is -1"},
		"rate_limit":          {`"rate_limit": {"orders": 10}`, "rate_limit has 10 orders"},
		"negative timeout":    {`"dns": {"propagation_timeout": -1}`, "set dns.check to none"},
		"eab":                 {`"external_account": {"key_id": "kid-1", "mac_key": "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"}`, ""},
		"half an eab":         {`"external_account": {"key_id": "kid-1"}`, "external_account needs both"},
		"eab with padding":    {`"external_account": {"key_id": "kid-1", "mac_key": "aHVzaA=="}`, "the MAC key is not in base64url without padding"},
		"http":                {`"ca": "http://ca.example/directory"`, "is not encrypted"},
		"unknown":             {`"polcy": "exact"`, "polcy"},
	} {
		t.Run(name, func(t *testing.T) {
			config := fmt.Sprintf(`{"apps": {"tls": {"automation": {"policies": [{"subjects": ["example.com"], "issuers": [{"module": "dns_persist", %s}]}]}}}}`, test.fields)
			wantError(t, validate(t, config, t.TempDir()), test.want)
		})
	}
}

func wantError(t *testing.T, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("got the error %v", err)
	case want != "" && err == nil:
		t.Errorf("no error, want %q", want)
	case want != "" && !strings.Contains(err.Error(), want):
		t.Errorf("got the error %v, want %q in it", err, want)
	}
}

// Validation must leave no trace: it also runs on machines that never serve the sites.
func TestValidateLeavesNoTrace(t *testing.T) {
	var asked atomic.Int32
	ca := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		http.Error(w, "not during validation", http.StatusInternalServerError)
	}))
	defer ca.Close()

	config, _, err := adapt("example.com, *.example.com {\n\tdns_persist " + ca.URL + "/directory {\n\t\temail ops@example.com\n\t\tresolvers 127.0.0.1:9\n\t}\n}\n")
	if err != nil {
		t.Fatal(err)
	}
	storage := t.TempDir()
	for range 2 {
		if err := validate(t, config, storage); err != nil {
			t.Fatal(err)
		}
	}
	err = filepath.WalkDir(storage, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			t.Errorf("validation wrote %s", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if n := asked.Load(); n > 0 {
		t.Errorf("validation asked the CA %d times", n)
	}
}
