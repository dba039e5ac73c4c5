package dnspersist

import (
	"strings"
	"testing"

	"github.com/mholt/acmez/v3/acme"
)

func TestValidateConfig(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*Issuer)
		want   []string
	}{
		"empty":             {func(*Issuer) {}, nil},
		"https":             {func(i *Issuer) { i.CA = "https://ca.example/directory" }, nil},
		"http localhost":    {func(i *Issuer) { i.CA = "http://localhost:14000/dir" }, nil},
		"http loopback 4":   {func(i *Issuer) { i.CA = "http://127.0.0.1:14000/dir" }, nil},
		"http loopback 6":   {func(i *Issuer) { i.CA = "http://[::1]:14000/dir" }, nil},
		"http private":      {func(i *Issuer) { i.CA = "http://10.0.0.1/dir" }, []string{"is not encrypted"}},
		"http lookalike":    {func(i *Issuer) { i.CA = "http://localhost.example/dir" }, []string{"is not encrypted"}},
		"no host":           {func(i *Issuer) { i.CA = "https:///dir" }, []string{"ca: "}},
		"test_ca":           {func(i *Issuer) { i.TestCA = "https://t.example/" }, []string{"one CA and one account"}},
		"recursive":         {func(i *Issuer) { i.dns().Check = "recursive" }, []string{"no resolvers to ask"}},
		"recursive with":    {func(i *Issuer) { i.dns().Check, i.dns().Resolvers = "recursive", []string{"192.0.2.1"} }, nil},
		"private networks":  {func(i *Issuer) { i.dns().PrivateNetworks = []string{"198.51.100.0/33"} }, []string{"dns.private_networks: \"198.51.100.0/33\""}},
		"negative timeout":  {func(i *Issuer) { i.dns().PropagationTimeout = -1 }, []string{"dns.check to none"}},
		"negative delay":    {func(i *Issuer) { i.dns().PropagationDelay = -1 }, []string{"propagation_delay is negative"}},
		"negative lifetime": {func(i *Issuer) { i.CertificateLifetime = -1 }, []string{"certificate_lifetime is negative"}},
		"rate limit":        {func(i *Issuer) { i.RateLimit = &RateLimit{Orders: 1} }, []string{"rate_limit has 1 orders"}},
		"half eab":          {func(i *Issuer) { i.ExternalAccount = &acme.EAB{KeyID: "k"} }, []string{"external_account"}},
		"several": {
			func(i *Issuer) { i.Policy, i.OnAccountLost = "x", "y" },
			[]string{"policy: ", "on_account_lost: "},
		},
	} {
		t.Run(name, func(t *testing.T) {
			iss := newIssuer()
			test.change(iss)
			err := validate(iss)
			if len(test.want) == 0 && err != nil {
				t.Errorf("got the error %v", err)
			}
			for _, want := range test.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("got the error %v, want %q in it", err, want)
				}
			}
		})
	}
}

func TestCheckResolver(t *testing.T) {
	for server, good := range map[string]bool{
		"192.0.2.1": true, "192.0.2.1:53": true, "2001:db8::1": true, "[2001:db8::1]": true, "[2001:db8::1]:5353": true,
		"dns.example": true, "dns.example:53": true, "localhost:1": true,
		"": false, ":53": false, "192.0.2.1:": false, "192.0.2.1:0": false, "192.0.2.1:65536": false, "192.0.2.1:-1": false,
		"192.0.2.1:dns": false, "https://dns.example": false, "tls://dns.example:853": false, "[2001:db8::1": false,
		"{env.DNS}": false, "a b": false, "a,b": false,
	} {
		if err := checkResolver(server); (err == nil) != good {
			t.Errorf("%q: got %v", server, err)
		}
	}
}
