package acmepersist

import (
	"crypto/x509"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/ca"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/site"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/internal/lab"
)

func TestWaitUntil(t *testing.T) {
	start := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	renewal := func(life time.Duration) clock {
		return clock{certificate: &x509.Certificate{NotBefore: start, NotAfter: start.Add(life)}, ratio: 1.0 / 3}
	}
	const day = 24 * time.Hour
	for _, tc := range []struct {
		name       string
		clock      clock
		confirming bool
		began      time.Duration
		want       time.Duration // after start; negative for no end
	}{
		{"a first certificate", clock{partialSince: start}, false, time.Hour, -1},
		{"90 days: until it is asked for anyway", renewal(90 * day), false, 60 * day, 75 * day},
		{"90 days, due already", renewal(90 * day), false, 80 * day, 75 * day},
		{"four minutes", renewal(4 * time.Minute), false, 160 * time.Second, 180 * time.Second},
		{"confirming: a quarter of what is left", renewal(90 * day), true, 86 * day, 87 * day},
		{"confirming in the last seconds", renewal(4 * time.Minute), true, 236 * time.Second, 246 * time.Second},
		{"confirming after the end", renewal(4 * time.Minute), true, time.Hour, time.Hour + 10*time.Second},
	} {
		got := tc.clock.waitUntil(tc.confirming, start.Add(tc.began))
		switch want := start.Add(tc.want); {
		case tc.want < 0:
			if !got.IsZero() {
				t.Errorf("%s: until %s, want no end", tc.name, got)
			}
		case got.Sub(want).Abs() > time.Second:
			t.Errorf("%s: until %s after the start, want %s", tc.name, got.Sub(start), tc.want)
		}
	}
}

// An attempt that waits for a server which lacks the record ends its wait when the certificate
// cannot wait any longer.
func TestInlineWaitEndsWhenDue(t *testing.T) {
	t.Parallel()
	dns, err := lab.NewDNS(2)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(dns.Close)
	dns.AddZone("example.test")
	const name = "_validation-persist.www.example.test"
	dns.SetTXT(0, name, "value")
	dns.ClearName(2, name)
	checker := propagation.NewChecker(propagation.Config{Resolvers: []string{dns.Resolver()}, Exchanger: dns.Exchanger()})
	iss := New(Config{
		CA: "https://ca.test/directory", Storage: &certmagic.FileStorage{Path: t.TempDir()}, Checker: checker, PropagationTimeout: 10 * time.Minute,
	})
	s := iss.sessionWith(iss.ca.At(&ca.Directory{}))
	gate := propagation.NewGate(0, 0)

	began := time.Now()
	// it is due when a quarter of its life is left
	a := &attempt{session: s, domain: "www.example.test", gate: gate, site: &siteSession{s, &site.Site{
		Maker: s.maker(ca.Identity{}), Identifier: "www.example.test", Record: site.Record{Name: name},
		Known: state.Name{Accepted: []state.AcceptedValue{{Value: "value"}}},
	}}}
	a.facts = facts{certificate: &x509.Certificate{NotBefore: began.Add(-88 * time.Second), NotAfter: began.Add(32 * time.Second)}, ratio: 1.0 / 3}
	report := a.waitInline(t.Context(), checker.Check(t.Context(), a.site.Target(), gate))
	if report.Status != propagation.StatusPartial {
		t.Fatalf("the record is %s, want partial", report.Status)
	}
	if waited := time.Since(began); waited < 1500*time.Millisecond || waited > 8*time.Second {
		t.Errorf("it waited %s, want 2 s", waited)
	}
}
