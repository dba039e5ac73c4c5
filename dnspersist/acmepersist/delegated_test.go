package acmepersist_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/libdns/libdns"
	"github.com/miekg/dns"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/site"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
	"github.com/dnspersist/caddy-dnspersist/internal/lab"
)

const platform = "certs.platform.test"

// labProvider writes into the lab's zones, and keeps what it was told.
type labProvider struct {
	dns *lab.DNS

	mu     sync.Mutex
	writes []string // names
}

func (p *labProvider) AppendRecords(_ context.Context, zone string, recs []libdns.Record) ([]libdns.Record, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range recs {
		name := strings.TrimSuffix(libdns.AbsoluteName(r.RR().Name, zone), ".")
		p.dns.AddTXT(0, name, r.(libdns.TXT).Text)
		p.writes = append(p.writes, name)
	}
	return recs, nil
}

func (p *labProvider) DeleteRecords(_ context.Context, zone string, recs []libdns.Record) ([]libdns.Record, error) {
	for _, r := range recs {
		p.dns.SetTXT(0, strings.TrimSuffix(libdns.AbsoluteName(r.RR().Name, zone), "."))
	}
	return recs, nil
}

func (p *labProvider) written(name string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(slices.DeleteFunc(slices.Clone(p.writes), func(n string) bool { return n != name }))
}

// tenants is an issuer with a provider for the zone to which tenants delegate.
type tenants struct {
	*issuing
	provider *labProvider
}

func newTenants(t *testing.T, change func(*acmepersist.Config)) *tenants {
	i := newIssuing(t)
	i.dns.AddZone(platform)
	p := &labProvider{dns: i.dns}
	config := acmepersist.Config{
		CA: i.ca.Directory(), Storage: &certmagic.FileStorage{Path: i.dir}, Transport: i.ca.HTTPClient().Transport,
		Checker: propagation.NewChecker(propagation.Config{Resolvers: []string{i.dns.Resolver()}, Exchanger: i.dns.Exchanger(), AllowPrivate: true}),
		Settle:  time.Millisecond, CacheCap: -1,
		Publishing: &acmepersist.Publishing{Provider: p, Mode: acmepersist.PublishKeep, Interval: 10 * time.Millisecond},
		Delegation: &site.Delegation{Zone: platform, OwnLabels: true},
	}
	if change != nil {
		change(&config)
	}
	i.Issuer = acmepersist.New(config)
	return &tenants{i, p}
}

// alias is what the owner of a domain sets.
func (n *tenants) alias(domain, target string) {
	n.dns.SetRR(0, fmt.Sprintf("_validation-persist.%s. 300 IN CNAME %s.", domain, target))
}

// answer is what the first name server answers with.
func (n *tenants) answer(name string, qtype uint16) (all []string) {
	n.t.Helper()
	query := new(dns.Msg)
	query.SetQuestion(name+".", qtype)
	r, _, err := new(dns.Client).Exchange(query, n.dns.Resolver())
	if err != nil {
		n.t.Fatal(err)
	}
	for _, rr := range r.Answer {
		all = append(all, strings.TrimPrefix(rr.String(), rr.Header().String()))
	}
	return all
}

func labelOf(domain string) string { return record.DelegationLabel(domain) + "." + platform }

// A tenant's CNAME chooses no place in the operator's zone but its own label, and where the operator
// lets it, one that is nobody else's. What it gets nothing for says which CNAME would do.
func TestTenantsCNAMEGetsNoOthersPlace(t *testing.T) {
	t.Parallel()
	n := newTenants(t, nil)
	for _, rr := range []string{
		"*." + platform + ". 300 IN A 203.0.113.7", "mail." + platform + ". 300 IN MX 10 mx.example.test.",
		"txt." + platform + ". 300 IN TXT \"v=spf1 -all\"", "login." + platform + ". 300 IN A 203.0.113.8",
	} {
		n.dns.SetRR(0, rr)
	}
	for what, target := range map[string]string{
		"deeper":        "_validation-persist.login." + platform,
		"underscore":    "_dmarc." + platform,
		"wildcard-host": "othertenant." + platform,
		"host":          "login." + platform,
		"mail":          "mail." + platform,
		"text":          "txt." + platform,
		"others-label":  labelOf("victim.example.test"),
		"elsewhere":     "x.elsewhere.test",
	} {
		domain := what + ".example.test"
		n.alias(domain, target)
		before := n.answer(target, dns.TypeA)
		err := n.issueFor(t.Context(), domain)
		want := fmt.Sprintf("is an alias (CNAME) of %s, ", target)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "change it to "+labelOf(domain)) {
			t.Errorf("%s: the error does not say which CNAME would do: %v", what, err)
		}
		if w := n.provider.written(target); w != 0 {
			t.Errorf("%s: %d writes at %s", what, w, target)
		}
		if after := n.answer(target, dns.TypeA); !slices.Equal(before, after) {
			t.Errorf("%s: %s had the address %q, now %q", what, target, before, after)
		}
	}
	n.dns.ClearName(0, "*."+platform)
	for domain, target := range map[string]string{"own.example.test": labelOf("own.example.test"), "label.example.test": "customer-1." + platform} {
		n.alias(domain, target)
		if err := n.issueFor(t.Context(), domain); err != nil {
			t.Errorf("%s at %s: %v", domain, target, err)
		}
		if w := n.provider.written(target); w != 1 {
			t.Errorf("%d writes at %s, want 1", w, target)
		}
	}
}

// The label of one's own is nobody's host, so a wildcard of the operator's zone does not matter; and
// without the option no other label is used.
func TestOwnLabelBelowWildcard(t *testing.T) {
	t.Parallel()
	n := newTenants(t, func(c *acmepersist.Config) { c.Delegation.OwnLabels = false })
	n.dns.SetRR(0, "*."+platform+". 300 IN A 203.0.113.7")
	n.alias("shop.example.test", labelOf("shop.example.test"))
	if err := n.issueFor(t.Context(), "shop.example.test"); err != nil {
		t.Error(err)
	}
	n.dns.ClearName(0, "*."+platform)
	n.alias("other.example.test", "customer-1."+platform)
	if err := n.issueFor(t.Context(), "other.example.test"); err == nil || !strings.Contains(err.Error(), labelOf("other.example.test")) {
		t.Errorf("at a label that was not allowed: %v", err)
	}
	if w := n.provider.written("customer-1." + platform); w != 0 {
		t.Errorf("%d writes at a label that was not allowed", w)
	}
}

// A stranger's CNAME to a label gets what is published there, and changes nothing of it; the names of one
// registered domain may widen it.
func TestStrangerWidensNothing(t *testing.T) {
	t.Parallel()
	n := newTenants(t, nil)
	const label = "customer-1." + platform
	n.dns.AddZone("shop.test")
	n.dns.AddZone("evil.test")
	for _, domain := range []string{"shop.test", "www.shop.test", "evil.test", "sub.evil.test"} {
		n.alias(domain, label)
	}
	if err := n.issueFor(t.Context(), "shop.test"); err != nil {
		t.Fatal(err)
	}
	before := n.answer(label, dns.TypeTXT)
	if err := n.issueFor(t.Context(), "evil.test"); err != nil {
		t.Errorf("what is published there is no secret: %v", err)
	}
	err := n.issueFor(t.Context(), "*.sub.evil.test")
	if err == nil || !strings.Contains(err.Error(), "is not widened to policy=wildcard") || !strings.Contains(err.Error(), labelOf("sub.evil.test")) {
		t.Errorf("a stranger who wants a wildcard: %v", err)
	}
	if after := n.answer(label, dns.TypeTXT); !slices.Equal(before, after) {
		t.Errorf("a stranger has changed %q to %q", before, after)
	}
	if err := n.issueFor(t.Context(), "*.www.shop.test"); err != nil {
		t.Errorf("its owner's wildcard: %v", err)
	}
}

// Where there is no CNAME to wait for, the bounds of on-demand names hold what is written.
func TestOnDemandWritesAreBounded(t *testing.T) {
	t.Parallel()
	n := newTenants(t, func(c *acmepersist.Config) {
		c.Delegation, c.OnDemand, c.NoWait, c.WritesPerHour, c.MaxRecords = nil, true, true, 3, 5
	})
	n.dns.AddZone("other.test")
	for i := range 5 {
		_ = n.issueFor(t.Context(), fmt.Sprintf("r%d.example.test", i))
	}
	if w := len(n.provider.writes); w != 3 {
		t.Errorf("%d writes, want 3 in the hour", w)
	}
	for i := range 3 {
		_ = n.issueFor(t.Context(), fmt.Sprintf("r%d.other.test", i))
	}
	if w := len(n.provider.writes); w != 5 {
		t.Errorf("%d writes, want 5 names in all", w)
	}
	if err := n.issueFor(t.Context(), "r9.other.test"); err == nil || !strings.Contains(err.Error(), "max_records") {
		t.Errorf("the error does not say what bounds it: %v", err)
	}
}

// What was written on demand is removed when its name has no certificate and nobody wants it, and only
// then.
func TestUnusedOnDemandRecordsAreRemoved(t *testing.T) {
	t.Parallel()
	n := newTenants(t, func(c *acmepersist.Config) { c.OnDemand, c.NoWait = true, true })
	for _, domain := range []string{"left.example.test", "managed.example.test"} {
		n.alias(domain, labelOf(domain))
		_ = n.issueFor(t.Context(), domain) // NoWait: it is seen to settle
		if w := n.provider.written(labelOf(domain)); w != 1 {
			t.Fatalf("%d writes for %s", w, domain)
		}
	}
	gone := func(domain string) bool { return len(n.answer(labelOf(domain), dns.TypeTXT)) == 0 }
	managed := []string{"managed.example.test"}
	if err := n.RemoveUnused(t.Context(), time.Hour, managed); err != nil || gone("left.example.test") {
		t.Errorf("a record that is wanted is gone: %v", err)
	}
	if err := n.RemoveUnused(t.Context(), 0, managed); err != nil || !gone("left.example.test") || gone("managed.example.test") {
		t.Errorf("what nobody wants: gone %v, what is managed: gone %v, %v", gone("left.example.test"), gone("managed.example.test"), err)
	}
	if entries, err := n.Inventory().At(t.Context(), labelOf("left.example.test")); err != nil || len(entries) != 0 {
		t.Errorf("the inventory has %v, %v", entries, err)
	}
}
