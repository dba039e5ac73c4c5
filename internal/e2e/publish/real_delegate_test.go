//go:build unix

package publish

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
	"github.com/dnspersist/caddy-dnspersist/internal/e2e/harness"
	"github.com/dnspersist/caddy-dnspersist/internal/lab"
	"github.com/dnspersist/caddy-dnspersist/internal/realdns"
	"github.com/dnspersist/caddy-dnspersist/internal/tuning"
)

// With real servers: three tenants, each of whom has set one CNAME in a zone that we cannot
// write, and a zone of ours with what is at their ends: certificates, renewals that write
// nothing, and a change of the dialect without one of the tenants' zones being touched.
func TestRealDelegation(t *testing.T) {
	for kind, c := range map[string]struct {
		start        func(testing.TB, ...realdns.Zone) *realdns.Server
		closed, open string
	}{
		"BIND": {realdns.BIND, "grant nobody name nothing.example.test. TXT;", "grant " + realdns.Key + " subdomain certs.platform.test. TXT;"},
		"Knot": {realdns.Knot, "nothing.example.test.", ""},
	} {
		t.Run(kind, func(t *testing.T) {
			var addrs [2]string
			o := options(14 * time.Second)
			tune := o.Tuning
			o.Tuning = func(v *tuning.Values) {
				tune(v)
				v.Exchanger = virtual{&addrs, propagation.NetExchanger{}}
			}
			e := harness.New(t, o)
			var tenants []string
			text := "@ NS ns1\nns1 A 192.0.2.1\n"
			targets := make(map[string]string)
			for _, n := range []string{"one", "two", "three"} {
				name := e.Name(n)
				tenants = append(tenants, name)
				targets[name] = record.DelegationLabel(name) + ".certs.platform.test"
				text += fmt.Sprintf("%s. 300 CNAME %s.\n", vname(name), targets[name])
			}
			server := c.start(t,
				realdns.Zone{Origin: "example.test", Policy: c.closed, Text: text},
				realdns.Zone{Origin: "certs.platform.test", Policy: c.open, Text: "@ NS ns1.example.test.\n"})
			addrs = [2]string{server.Addr(), server.Addr()}
			// of a CNAME into another zone an authoritative server tells no more than that
			resolver := realdns.Unbound(t, map[string][]*realdns.Server{"example.test": {server}, "certs.platform.test": {server}})
			ca, err := lab.NewCA(lab.CAConfig{Resolver: resolver.Addr(), Lifetime: 14 * time.Second})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { ca.Close() })
			e.CA = ca
			block := strings.ReplaceAll(e.Block("delegate_to certs.platform.test", fmt.Sprintf("dns rfc2136 {\n\t\t\tkey_name %s\n\t\t\tkey_alg hmac-sha256\n\t\t\tkey %s\n\t\t\tserver %s\n\t\t}",
				realdns.Key, realdns.KeySecret, server.Addr())), e.DNS.Resolver(), server.Addr())

			before := serial(t, server)
			e.Load(e.Global("renew_interval 1s") + e.Site(strings.Join(tenants, ", "), block))
			for _, n := range tenants {
				e.WaitTrusted(n, time.Minute)
			}
			e.CA.SetDialect(lab.Dialect{Draft: "02", AcceptAccountURL: true})
			account := e.CA.Orders()[0].Account
			for _, n := range tenants {
				e.Eventually(90*time.Second, "the hashed value of "+n+" alone", func() error {
					got, ttl, err := texts(server, targets[n])
					if err != nil {
						return err
					}
					if len(got) != 1 || !strings.Contains(got[0], e.CA.HashedURI(account, n)) || ttl != 3600 {
						return fmt.Errorf("there is %q with TTL %d", got, ttl)
					}
					return nil
				})
				renewed(e, n, e.WaitTrusted(n, harness.Soon))
			}
			if after := serial(t, server); after != before {
				t.Errorf("the tenants' zone has changed: serial %d, then %d", before, after)
			}
			if n := len(e.CA.FailedValidations()); n != 0 {
				t.Errorf("%d failed validations", n)
			}
			orders := e.CA.Orders()
			if !slices.ContainsFunc(orders, func(o lab.Order) bool { return slices.Contains(o.Identifiers, tenants[2]) }) {
				t.Error("no order for the third tenant")
			}
		})
	}
}
