//go:build unix

package publish

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/dnspersist/caddy-dnspersist/dnspersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
	"github.com/dnspersist/caddy-dnspersist/internal/e2e/harness"
	"github.com/dnspersist/caddy-dnspersist/internal/lab"
	"github.com/dnspersist/caddy-dnspersist/internal/realdns"
	"github.com/dnspersist/caddy-dnspersist/internal/tuning"

	_ "github.com/dnspersist/caddy-dnspersist/internal/rfc2136" // as cmd/caddy has it
)

// texts are the TXT values at a name on a real server, and their TTL.
func texts(s *realdns.Server, name string) (values []string, ttl uint32, err error) {
	answer, err := s.Query(name, dns.TypeTXT)
	if err != nil {
		return nil, 0, err
	}
	for _, rr := range answer.Answer {
		if txt, ok := rr.(*dns.TXT); ok {
			values, ttl = append(values, strings.Join(txt.Txt, "")), rr.Header().Ttl
		}
	}
	slices.Sort(values)
	return values, ttl, nil
}

// transfer asks for the zone with the key that may write.
func transfer(s *realdns.Server) error {
	query := new(dns.Msg)
	query.SetAxfr("example.test.")
	query.SetTsig(realdns.Key+".", dns.HmacSHA256, 300, time.Now().Unix())
	tr := &dns.Transfer{TsigSecret: map[string]string{realdns.Key + ".": realdns.KeySecret}}
	answers, err := tr.In(query, s.Addr())
	if err != nil {
		return err
	}
	for a := range answers {
		if a.Error != nil {
			err = a.Error
		}
	}
	return err
}

// serial is the zone's.
func serial(t *testing.T, s *realdns.Server) uint32 {
	t.Helper()
	answer, err := s.Query("example.test", dns.TypeSOA)
	if err != nil || len(answer.Answer) == 0 {
		t.Fatalf("no SOA: %v", err)
	}
	return answer.Answer[0].(*dns.SOA).Serial
}

// notifyLag is how long the secondary is not told of a change.
const notifyLag = 3 * time.Second

// real has a primary, a secondary that follows it by NOTIFY and transfer and lags by seconds,
// and a CA that asks the latter. At the first of two names there is a value of others.
func real(t *testing.T, start func(testing.TB, ...realdns.Zone) *realdns.Server, policy func(vnames ...string) string) (e *harness.Env, primary, secondary *realdns.Server, name, ends string) {
	t.Helper()
	var addrs [2]string
	o := options(14 * time.Second)
	tune := o.Tuning
	o.Tuning = func(v *tuning.Values) {
		tune(v)
		v.Exchanger = virtual{&addrs, propagation.NetExchanger{}}
	}
	e = harness.New(t, o)
	name, ends = e.Name("www"), e.Name("ends")
	notify := newRelay(t, notifyLag)
	primary = start(t, realdns.Zone{
		Origin: "example.test", Policy: policy(vname(name), vname(ends)), SOA: "3600 600 86400 5", Notify: notify.server(),
		Text: fmt.Sprintf("@ NS ns1\n@ NS ns2\nns1 A 192.0.2.1\nns2 A 192.0.2.2\n%s. 300 TXT %s\n", vname(name), record.Quote(foreign)),
	})
	secondary = start(t, realdns.Zone{Origin: "example.test", Primary: primary})
	notify.leadsTo(secondary)
	t.Cleanup(func() {
		if notify.carried.Load() == 0 {
			t.Error("no NOTIFY has come to the secondary")
		}
	})
	addrs = [2]string{primary.Addr(), secondary.Addr()}
	ca, err := lab.NewCA(lab.CAConfig{Resolver: secondary.Addr(), Lifetime: 14 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ca.Close() })
	e.CA = ca
	return e, primary, secondary, name, ends
}

// virtual puts the servers at the addresses that the zone says.
type virtual struct {
	addrs *[2]string
	net   propagation.NetExchanger
}

func (v virtual) Exchange(ctx context.Context, network, addr string, query *dns.Msg) (*dns.Msg, error) {
	switch addr {
	case "192.0.2.1:53":
		addr = v.addrs[0]
	case "192.0.2.2:53":
		addr = v.addrs[1]
	}
	return v.net.Exchange(ctx, network, addr, query)
}

// unpublish does what the command does: it removes what the inventory has for the names.
func unpublish(t *testing.T, caddyfile string, names ...string) {
	t.Helper()
	config, err := harness.Adapt(caddyfile)
	if err != nil {
		t.Fatal(err)
	}
	off, err := dnspersist.Open(config)
	if err != nil {
		t.Fatal(err)
	}
	defer off.Close()
	checks, _, err := off.Checks(t.Context(), "", names)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range checks {
		entries, err := c.Inventory().At(t.Context(), c.Place())
		if err != nil || len(entries) == 0 {
			t.Errorf("%s: %d entries, %v", c.Name(), len(entries), err)
		}
		for _, e := range entries {
			if _, err := c.Unpublish(t.Context(), c.Configured(), e.Value); err != nil {
				t.Error(err)
			}
		}
	}
}

// With real servers and a key that may write TXT records at two validation names only and not
// transfer the zone: from a bare name to a certificate, renewals that write nothing, a wider
// policy, another dialect, a record with an end that is renewed, and the removal of exactly
// ours: each without a failed validation and with the other value as it was.
func TestBIND(t *testing.T) {
	realServers(t, realdns.BIND, func(names ...string) string {
		grant := "grant " + realdns.Key + " name "
		return grant + strings.Join(names, ". TXT; "+grant) + ". TXT;"
	})
}

func TestKnot(t *testing.T) {
	realServers(t, realdns.Knot, func(names ...string) string { return strings.Join(names, "., ") + "." })
}

func realServers(t *testing.T, start func(testing.TB, ...realdns.Zone) *realdns.Server, policy func(...string) string) {
	e, primary, secondary, name, ends := real(t, start, policy)
	block := func(more ...string) string {
		provider := fmt.Sprintf("dns rfc2136 {\n\t\t\tkey_name %s\n\t\t\tkey_alg hmac-sha256\n\t\t\tkey %s\n\t\t\tserver %s\n\t\t}",
			realdns.Key, realdns.KeySecret, primary.Addr())
		return strings.ReplaceAll(e.Block(append(more, provider)...), e.DNS.Resolver(), primary.Addr())
	}
	site := func(names string) string { return e.Global("renew_interval 1s") + e.Site(names, block()) }
	both := site(name+", *."+name) + e.Site(ends, block("persist_for 100s"))
	stands := func(within time.Duration, is func(ours []string) bool) {
		t.Helper()
		e.Eventually(within, "what is wanted to stand on both servers", func() error {
			for _, s := range []*realdns.Server{primary, secondary} {
				all, ttl, err := texts(s, vname(name))
				if err != nil {
					return err
				}
				rest := slices.DeleteFunc(slices.Clone(all), func(v string) bool { return v == foreign })
				if len(rest) == len(all) {
					t.Errorf("the other value is lost: %q", all)
				}
				if ttl != 300 {
					t.Errorf("the TTL has become %d", ttl)
				}
				if !is(rest) {
					return fmt.Errorf("there is %q", rest)
				}
			}
			return nil
		})
	}

	if err := transfer(primary); err == nil {
		t.Error("the key may transfer the zone")
	}
	e.Load(site(name))
	first := e.WaitTrusted(name, time.Minute)
	var plain string
	stands(harness.Soon, func(ours []string) bool {
		if len(ours) == 1 {
			plain = ours[0]
		}
		return len(ours) == 1
	})
	before := serial(t, primary)
	renewed(e, name, first)
	if after := serial(t, primary); after != before {
		t.Errorf("the renewal changed the zone: serial %d, then %d", before, after)
	}

	e.Load(both)
	e.WaitTrusted(ends, time.Minute)
	lasting, _, err := texts(secondary, vname(ends))
	if err != nil || len(lasting) == 0 || !strings.Contains(lasting[0], "persistUntil=") {
		t.Fatalf("with an end: %q, %v", lasting, err)
	}
	e.WaitTrusted("x."+name, time.Minute)
	stands(time.Minute, func(ours []string) bool { return slices.Equal(ours, []string{plain + "; policy=wildcard"}) })

	e.CA.SetDialect(lab.Dialect{Draft: "02", AcceptAccountURL: true})
	hashed := e.CA.HashedURI(e.CA.Orders()[0].Account, name)
	stands(90*time.Second, func(ours []string) bool { return len(ours) == 1 && strings.Contains(ours[0], hashed) })
	e.Eventually(2*time.Minute, "the record with an end to be renewed, and its predecessor to go", func() error {
		got, _, err := texts(secondary, vname(ends))
		if err == nil && (len(got) != 1 || slices.Contains(lasting, got[0]) || !strings.Contains(got[0], "persistUntil=")) {
			err = fmt.Errorf("there is %q", got)
		}
		return err
	})
	if n := len(e.CA.FailedValidations()); n != 0 {
		t.Errorf("%d failed validations", n)
	}
	e.Stop()
	unpublish(t, both, name, ends)
	for n, want := range map[string][]string{name: {foreign}, ends: nil} {
		for _, s := range []*realdns.Server{primary, secondary} {
			if got, _, err := texts(s, vname(n)); err != nil || !slices.Equal(got, want) {
				t.Errorf("after the removal at %s: %q, %v", n, got, err)
			}
		}
	}
	if strings.Contains(e.LogTail(1<<20), realdns.KeySecret) {
		t.Error("the log shows the key")
	}
}
