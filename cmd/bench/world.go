package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

const (
	resolverAddr = "192.0.2.53:53"
	resolver     = "192.0.2.53"
	// latency is how long every answer takes.
	latency = 20 * time.Millisecond
	// zoneTTL is that of the zones' NS and address records, in seconds.
	zoneTTL = 3600
)

// world answers DNS queries in the process: as two authoritative servers for
// every zone, each at its own address, and as the resolver. Zone i has the names
// host<n>.z<i>.example. for every n that is i modulo the number of zones; further
// names, those beside, have a zone each.
type world struct {
	names int // without those beside
	zones int // of these
	value string
	// visible has, for each name, whether its record stands.
	visible []atomic.Bool

	txt       atomic.Int64 // questions for records
	discovery atomic.Int64 // questions that look for zones and servers
}

func newWorld(names, zones, beside int) (*world, error) {
	if names < 1 || zones < 1 || zones > names || beside < 0 || zones+beside > 1<<20 {
		return nil, fmt.Errorf("%d names in %d zones: at least one of each is needed, and a name for every zone", names, zones)
	}
	want := wantOf(record.DialectAccountURL)
	value, err := goodValue(want)
	if err != nil {
		return nil, err
	}
	return &world{names: names, zones: zones, value: value, visible: make([]atomic.Bool, names+beside)}, nil
}

// zoneOf is the number of the zone that name i is in.
func (w *world) zoneOf(i int) int {
	if i < w.names {
		return i % w.zones
	}
	return w.zones + i - w.names
}

func origin(zone int) string { return fmt.Sprintf("z%d.example.", zone) }

// host is the identifier of name i.
func (w *world) host(i int) string {
	return strings.TrimSuffix(fmt.Sprintf("host%d.%s", i, origin(w.zoneOf(i))), ".")
}

// server is the address of a zone's first or second server.
func server(zone, which int) netip.Addr {
	n := zone*2 + which
	return netip.AddrFrom4([4]byte{11, byte(n >> 16), byte(n >> 8), byte(n)})
}

// Exchange implements propagation.Exchanger.
func (w *world) Exchange(ctx context.Context, _, addr string, query *dns.Msg) (*dns.Msg, error) {
	q := query.Question[0]
	if q.Qtype == dns.TypeTXT {
		w.txt.Add(1)
	} else {
		w.discovery.Add(1)
	}
	timer := time.NewTimer(latency)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	reply := new(dns.Msg).SetReply(query)
	if addr == resolverAddr {
		reply.RecursionAvailable = true
	} else {
		if host, _, err := net.SplitHostPort(addr); err != nil || !strings.HasPrefix(host, "11.") {
			return nil, errors.New("network is unreachable")
		}
		reply.Authoritative = true
	}
	w.answer(reply, dns.CanonicalName(q.Name), q.Qtype)
	return reply, nil
}

// answer fills in what is in the zone that name is in.
func (w *world) answer(reply *dns.Msg, name string, qtype uint16) {
	labels := dns.SplitDomainName(name)
	var zone int
	if len(labels) < 2 || labels[len(labels)-1] != "example" || !scan(labels[len(labels)-2], "z", &zone) || zone >= w.zones+len(w.visible)-w.names {
		reply.Rcode = dns.RcodeNameError
		reply.Ns = []dns.RR{soa("example.")}
		return
	}
	apex := origin(zone)
	var rr dns.RR
	switch labels = labels[:len(labels)-2]; {
	case len(labels) == 0 && qtype == dns.TypeSOA:
		rr = soa(apex)
	case len(labels) == 0 && qtype == dns.TypeNS:
		for _, ns := range []string{"ns1.", "ns2."} {
			reply.Answer = append(reply.Answer, &dns.NS{Hdr: header(apex, dns.TypeNS), Ns: ns + apex})
		}
		return
	case len(labels) == 1 && qtype == dns.TypeA:
		var which int
		if scan(labels[0], "ns", &which) && (which == 1 || which == 2) {
			rr = &dns.A{Hdr: header(name, dns.TypeA), A: server(zone, which-1).AsSlice()}
		}
	case len(labels) == 2 && labels[0] == record.Label && qtype == dns.TypeTXT:
		var i int
		if !scan(labels[1], "host", &i) || i >= len(w.visible) || !w.visible[i].Load() {
			reply.Rcode = dns.RcodeNameError
		} else {
			rr = &dns.TXT{Hdr: header(name, dns.TypeTXT), Txt: record.Split(w.value)}
		}
	}
	if rr != nil {
		reply.Answer = []dns.RR{rr}
	} else {
		reply.Ns = []dns.RR{soa(apex)}
	}
}

// scan reads the number after a prefix.
func scan(label, prefix string, n *int) bool {
	digits, ok := strings.CutPrefix(label, prefix)
	if !ok || digits == "" {
		return false
	}
	*n = 0
	for _, c := range []byte(digits) {
		if c < '0' || c > '9' || *n > 1<<24 {
			return false
		}
		*n = *n*10 + int(c-'0')
	}
	return true
}

func header(name string, rrtype uint16) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: rrtype, Class: dns.ClassINET, Ttl: zoneTTL}
}

func soa(apex string) dns.RR {
	return &dns.SOA{
		Hdr: header(apex, dns.TypeSOA), Ns: "ns1." + apex, Mbox: "hostmaster." + apex,
		Serial: 1, Refresh: 7200, Retry: 900, Expire: 1209600, Minttl: 300,
	}
}
