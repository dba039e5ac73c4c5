package lab_test

import (
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/internal/lab"
)

func newDNS(t *testing.T, servers int) *lab.DNS {
	t.Helper()
	d, err := lab.NewDNS(servers)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

func query(name string, qtype uint16) *dns.Msg {
	m := new(dns.Msg).SetQuestion(dns.Fqdn(name), qtype)
	m.SetEdns0(1232, false)
	return m
}

// ask asks a server, 0 being the recursive one, over TCP.
func ask(t *testing.T, d *lab.DNS, server int, name string, qtype uint16) *dns.Msg {
	t.Helper()
	addr := d.Resolver()
	if server > 0 {
		addr = d.Address(server) + ":53"
	}
	reply, err := d.Exchanger().Exchange(t.Context(), "tcp", addr, query(name, qtype))
	if err != nil {
		t.Fatal(err)
	}
	return reply
}

// text has the TXT records of a reply, sorted.
func text(m *dns.Msg) string {
	var values []string
	for _, rr := range m.Answer {
		if txt, ok := rr.(*dns.TXT); ok {
			values = append(values, strings.Join(txt.Txt, ""))
		}
	}
	slices.Sort(values)
	return strings.Join(values, " ")
}

func soaOf(m *dns.Msg) string {
	for _, rr := range m.Ns {
		if soa, ok := rr.(*dns.SOA); ok {
			return soa.Hdr.Name
		}
	}
	return ""
}

func TestAuthoritative(t *testing.T) {
	d := newDNS(t, 3)
	d.AddZone(zone, 1, 2)
	d.AddZone("other.test", 3)
	d.SetTXT(0, "a.b."+zone, "one")
	d.AddTXT(2, "a.b."+zone, "two")
	d.SetRR(0, "alias."+zone+". CNAME target.other.test.")
	d.SetRR(0, "*.wild."+zone+`. TXT "star"`)
	d.SetRR(0, "kid."+zone+". NS ns3.lab.test.")

	if m := ask(t, d, 1, "a.b."+zone, dns.TypeTXT); text(m) != "one" || !m.Authoritative || m.RecursionAvailable {
		t.Errorf("server 1: %v", m)
	}
	if m := ask(t, d, 2, "A.b."+zone, dns.TypeTXT); text(m) != "one two" {
		t.Errorf("server 2: %v", m)
	}
	if m := ask(t, d, 3, "a.b."+zone, dns.TypeTXT); m.Rcode != dns.RcodeRefused {
		t.Errorf("server 3: %v", m)
	}
	for _, c := range []struct {
		name  string
		qtype uint16
		rcode int
	}{
		{"a.b." + zone, dns.TypeA, dns.RcodeSuccess},
		{"b." + zone, dns.TypeTXT, dns.RcodeSuccess}, // empty non-terminal
		{zone, dns.TypeTXT, dns.RcodeSuccess},
		{"none." + zone, dns.TypeTXT, dns.RcodeNameError},
		{"x.a.b." + zone, dns.TypeTXT, dns.RcodeNameError},
	} {
		if m := ask(t, d, 1, c.name, c.qtype); m.Rcode != c.rcode || len(m.Answer) != 0 || soaOf(m) != zone+"." || !m.Authoritative {
			t.Errorf("%s: %v", c.name, m)
		}
	}
	if m := ask(t, d, 1, "x.y.wild."+zone, dns.TypeTXT); text(m) != "star" {
		t.Errorf("wildcard: %v", m)
	}
	if m := ask(t, d, 1, "alias."+zone, dns.TypeTXT); len(m.Answer) != 1 || m.Answer[0].Header().Rrtype != dns.TypeCNAME {
		t.Errorf("alias: %v", m)
	}
	if m := ask(t, d, 1, "x.kid."+zone, dns.TypeTXT); m.Authoritative || len(m.Answer) != 0 || len(m.Ns) != 1 || m.Ns[0].Header().Rrtype != dns.TypeNS || !strings.Contains(m.Extra[0].String(), "192.0.2.3") {
		t.Errorf("referral: %v", m)
	}
	if m := ask(t, d, 1, zone, dns.TypeNS); len(m.Answer) != 2 {
		t.Errorf("NS: %v", m)
	}
	if m := ask(t, d, 3, "ns2.lab.test", dns.TypeA); len(m.Answer) != 1 || !strings.Contains(m.Answer[0].String(), "192.0.2.2") {
		t.Errorf("host: %v", m)
	}
	one, two := d.Serial(1, zone), d.Serial(2, zone)
	d.ClearName(2, "a.b."+zone)
	if d.Serial(1, zone) != one || d.Serial(2, zone) != two+1 {
		t.Error("serials")
	}
	if m := ask(t, d, 2, "a.b."+zone, dns.TypeTXT); m.Rcode != dns.RcodeNameError {
		t.Errorf("cleared: %v", m)
	}
}

func TestLongAndOddValues(t *testing.T) {
	d := newDNS(t, 1)
	d.AddZone(zone)
	long := strings.Repeat("0123456789", 60)
	d.SetTXT(0, "long."+zone, long)
	d.SetTXT(0, "odd."+zone, `a\b"c`)
	m := ask(t, d, 1, "long."+zone, dns.TypeTXT)
	if text(m) != long || len(m.Answer[0].(*dns.TXT).Txt) != 3 {
		t.Errorf("long: %v", m)
	}
	if m := ask(t, d, 1, "odd."+zone, dns.TypeTXT); text(m) != `a\\b\"c` {
		t.Errorf("odd: %v", m)
	}
	d.SetTXT(0, "odd."+zone)
	if m := ask(t, d, 1, "odd."+zone, dns.TypeTXT); m.Rcode != dns.RcodeNameError {
		t.Errorf("removed: %v", m)
	}
}

func TestRecursive(t *testing.T) {
	d := newDNS(t, 3)
	d.AddZone(zone)
	d.AddZone("other.test", 3)
	d.SetTXT(1, "x."+zone, "one")
	d.SetTXT(2, "x."+zone, "two")
	d.SetTXT(0, "target.other.test", "far")
	d.SetRR(0, "alias."+zone+". CNAME target.other.test.")
	d.SetRR(0, "loop."+zone+". CNAME loop."+zone+".")
	d.SetRR(0, "gone."+zone+". CNAME gone.other.test.")

	d.SetPick("first")
	if m := ask(t, d, 0, "x."+zone, dns.TypeTXT); text(m) != "one" || m.Authoritative || !m.RecursionAvailable {
		t.Errorf("first: %v", m)
	}
	for _, mode := range []string{"silent", "servfail", "refused", "lame"} {
		d.SetMode(1, mode)
		if m := ask(t, d, 0, "x."+zone, dns.TypeTXT); text(m) != "two" {
			t.Errorf("around %s: %v", mode, m)
		}
	}
	d.SetMode(1, "normal")
	for _, pick := range []string{"last", "worst"} {
		d.SetPick(pick)
		if m := ask(t, d, 0, "x."+zone, dns.TypeTXT); m.Rcode != dns.RcodeNameError || soaOf(m) != zone+"." {
			t.Errorf("%s: %v", pick, m)
		}
	}
	d.SetPick("random")
	if m := ask(t, d, 0, "alias."+zone, dns.TypeTXT); text(m) != "far" || len(m.Answer) != 2 {
		t.Errorf("alias: %v", m)
	}
	if m := ask(t, d, 0, "loop."+zone, dns.TypeTXT); m.Rcode != dns.RcodeServerFailure {
		t.Errorf("loop: %v", m)
	}
	if m := ask(t, d, 0, "gone."+zone, dns.TypeTXT); m.Rcode != dns.RcodeNameError || soaOf(m) != "other.test." {
		t.Errorf("gone: %v", m)
	}
	if m := ask(t, d, 0, "www.nowhere", dns.TypeTXT); m.Rcode != dns.RcodeNameError || soaOf(m) != "." {
		t.Errorf("nowhere: %v", m)
	}
	d.SetMode(3, "silent")
	if m := ask(t, d, 0, "target.other.test", dns.TypeTXT); m.Rcode != dns.RcodeServerFailure {
		t.Errorf("all broken: %v", m)
	}
}

func TestModes(t *testing.T) {
	d := newDNS(t, 1)
	d.AddZone(zone)
	d.SetTXT(0, "x."+zone, "one")
	quick := propagation.NetExchanger{UDPTimeout: 100 * time.Millisecond, TCPTimeout: 100 * time.Millisecond}
	slow := propagation.NetExchanger{UDPTimeout: 10 * time.Second, TCPTimeout: 10 * time.Second}
	silent := func(m *dns.Msg) bool { return m == nil }
	good := func(m *dns.Msg) bool { return m != nil && text(m) == "one" }
	rcode := func(code int) func(*dns.Msg) bool {
		return func(m *dns.Msg) bool { return m != nil && m.Rcode == code }
	}
	lame := func(m *dns.Msg) bool {
		return m != nil && m.Rcode == dns.RcodeSuccess && !m.Authoritative && len(m.Answer) == 0
	}
	cut := func(m *dns.Msg) bool { return m != nil && m.Truncated && len(m.Answer) == 0 }
	for _, c := range []struct {
		mode     string
		udp, tcp func(*dns.Msg) bool
	}{
		{"normal", good, good},
		{"silent", silent, silent},
		{"servfail", rcode(dns.RcodeServerFailure), rcode(dns.RcodeServerFailure)},
		{"refused", rcode(dns.RcodeRefused), rcode(dns.RcodeRefused)},
		{"lame", lame, lame},
		{"tcponly", silent, good},
		{"truncate", cut, good},
	} {
		d.SetMode(1, c.mode)
		for network, want := range map[string]func(*dns.Msg) bool{"udp": c.udp, "tcp": c.tcp} {
			exchanger := slow
			if want(nil) {
				exchanger = quick
			}
			m, _ := exchanger.Exchange(t.Context(), network, d.RealAddr(1), query("x."+zone, dns.TypeTXT))
			if !want(m) {
				t.Errorf("%s over %s: %v", c.mode, network, m)
			}
		}
	}
	d.SetMode(1, "normal")
	d.SetDelay(1, 50*time.Millisecond)
	begin := time.Now()
	ask(t, d, 1, "x."+zone, dns.TypeTXT)
	if time.Since(begin) < 50*time.Millisecond {
		t.Error("no delay")
	}
	q := d.Queries()
	if last := q[len(q)-1]; last.Server != 1 || last.Name != "x."+zone+"." || last.Type != "TXT" || last.Network != "tcp" {
		t.Errorf("query %+v", last)
	}
}

func TestFreePort(t *testing.T) {
	port, err := lab.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
}
