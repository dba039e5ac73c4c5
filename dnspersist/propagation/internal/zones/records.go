package zones

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// SOAOf returns the SOA record in rrs that speaks for name.
func SOAOf(rrs []dns.RR, name string) *dns.SOA {
	for _, rr := range rrs {
		if soa, ok := rr.(*dns.SOA); ok && dns.IsSubDomain(soa.Hdr.Name, name) {
			return soa
		}
	}
	return nil
}

// CutOf returns the owner of the NS records in rrs that speak for name.
func CutOf(rrs []dns.RR, name string) string {
	for _, rr := range rrs {
		if ns, ok := rr.(*dns.NS); ok && dns.IsSubDomain(ns.Hdr.Name, name) {
			return dns.CanonicalName(ns.Hdr.Name)
		}
	}
	return ""
}

// GlueOf returns the addresses in rrs by host.
func GlueOf(rrs []dns.RR) map[string][]netip.Addr {
	glue := make(map[string][]netip.Addr)
	for _, rr := range rrs {
		var ip netip.Addr
		switch rr := rr.(type) {
		case *dns.A:
			ip, _ = netip.AddrFromSlice(rr.A)
		case *dns.AAAA:
			ip, _ = netip.AddrFromSlice(rr.AAAA)
		default:
			continue
		}
		host := dns.CanonicalName(rr.Header().Name)
		glue[host] = append(glue[host], ip.Unmap())
	}
	return glue
}

// IsBelow reports whether name is strictly below zone; both canonical.
func IsBelow(name, zone string) bool {
	return name != zone && dns.IsSubDomain(zone, name)
}

// NSRecords returns the hosts that rrs name for owner, and their TTL.
func NSRecords(rrs []dns.RR, owner string) ([]string, uint32) {
	var hosts []string
	ttl := uint32(maxZoneTTL / time.Second)
	for _, rr := range rrs {
		if ns, ok := rr.(*dns.NS); ok && dns.CanonicalName(ns.Hdr.Name) == owner {
			hosts = append(hosts, dns.CanonicalName(ns.Ns))
			ttl = min(ttl, ns.Hdr.Ttl)
		}
	}
	slices.Sort(hosts)
	hosts = slices.Compact(hosts)
	return sampled(hosts, min(len(hosts), maxZoneServer), time.Now()), ttl
}

func HasAlias(rrs []dns.RR) bool {
	return slices.ContainsFunc(rrs, func(rr dns.RR) bool {
		t := rr.Header().Rrtype
		return t == dns.TypeCNAME || t == dns.TypeDNAME
	})
}

// Display is a name as shown to a person: without the final dot.
func Display(name string) string {
	if name == "." {
		return name
	}
	return strings.TrimSuffix(name, ".")
}

// Parent is name without its first label.
func Parent(name string) string {
	next, end := dns.NextLabel(name, 0)
	if end {
		return "."
	}
	return name[next:]
}

// DNSAddr is where the name server at ip listens.
func DNSAddr(ip netip.Addr) string { return net.JoinHostPort(ip.String(), "53") }
