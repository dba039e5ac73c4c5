package zones

import "net/netip"

// networks are those in which a public CA asks name servers, and in which it does not. The longest prefix that
// contains an address decides. They are those of IANA's registries of special-purpose addresses
// (iana-ipv4-special-registry, iana-ipv6-special-registry, as of October 2025) by their column
// "Globally Reachable"; of IPv6 only 2000::/3 is assigned for unicast (ipv6-address-space).
//
// Networks for documentation that are older than RFC 9637 count as public: nobody is there,
// and examples and tests use them. Networks through which IPv4 addresses are reached are private, for
// which addresses these are depends on the network, but for 64:ff9b::/96 and 2002::/16.
var networks = []network{
	{netip.MustParsePrefix("0.0.0.0/0"), true},
	{netip.MustParsePrefix("0.0.0.0/8"), false},        // this network, RFC 791
	{netip.MustParsePrefix("10.0.0.0/8"), false},       // private, RFC 1918
	{netip.MustParsePrefix("100.64.0.0/10"), false},    // shared by carriers, RFC 6598
	{netip.MustParsePrefix("127.0.0.0/8"), false},      // loopback, RFC 1122
	{netip.MustParsePrefix("168.63.129.16/32"), false}, // Azure's resolver and host, from its machines alone
	{netip.MustParsePrefix("169.254.0.0/16"), false},   // link-local, RFC 3927
	{netip.MustParsePrefix("172.16.0.0/12"), false},    // private, RFC 1918
	{netip.MustParsePrefix("192.0.0.0/24"), false},     // protocol assignments, RFC 6890; Oracle's metadata
	{netip.MustParsePrefix("192.0.0.9/32"), true},      // PCP anycast, RFC 7723
	{netip.MustParsePrefix("192.0.0.10/32"), true},     // TURN anycast, RFC 8155
	{netip.MustParsePrefix("192.88.99.2/32"), false},   // 6a44 relay, RFC 6751
	{netip.MustParsePrefix("192.168.0.0/16"), false},   // private, RFC 1918
	{netip.MustParsePrefix("198.18.0.0/15"), false},    // benchmarks, RFC 2544
	{netip.MustParsePrefix("224.0.0.0/4"), false},      // multicast
	{netip.MustParsePrefix("240.0.0.0/4"), false},      // reserved, broadcast, RFC 1112
	{netip.MustParsePrefix("::/0"), false},             // fc00::/7, fe80::/10, 100::/64, 5f00::/16, 64:ff9b:1::/48, ::/96 and others
	{netip.MustParsePrefix("2000::/3"), true},          // unicast, RFC 4291
	{netip.MustParsePrefix("2001::/23"), false},        // protocol assignments, RFC 2928; Teredo
	{netip.MustParsePrefix("2001:1::1/128"), true},     // PCP anycast, RFC 7723
	{netip.MustParsePrefix("2001:1::2/128"), true},     // TURN anycast, RFC 8155
	{netip.MustParsePrefix("2001:1::3/128"), true},     // DNS-SD SRP anycast, RFC 9665
	{netip.MustParsePrefix("2001:3::/32"), true},       // AMT, RFC 7450
	{netip.MustParsePrefix("2001:4:112::/48"), true},   // AS112, RFC 7535
	{netip.MustParsePrefix("2001:20::/28"), true},      // ORCHIDv2, RFC 7343
	{netip.MustParsePrefix("2001:30::/28"), true},      // drone remote ID, RFC 9374
	{netip.MustParsePrefix("3fff::/20"), false},        // documentation, RFC 9637
}

// network is a prefix and whether it is public.
type network struct {
	netip.Prefix
	public bool
}

// Prefixes that carry an IPv4 address, which decides, and where in the address.
var embeddedIPv4 = []struct {
	prefix netip.Prefix
	offset int
}{
	{netip.MustParsePrefix("64:ff9b::/96"), 12}, // NAT64, RFC 6052
	{netip.MustParsePrefix("2002::/16"), 2},     // 6to4, RFC 3056
}

// usable reports whether a server can be at addr at all.
func usable(addr netip.Addr) bool {
	return addr.IsValid() && !addr.IsUnspecified() && !addr.IsMulticast()
}

// IsPrivate reports whether a public CA cannot or will not ask a server at addr.
func IsPrivate(addr netip.Addr) bool {
	addr = addr.Unmap().WithZone("")
	for _, e := range embeddedIPv4 {
		if e.prefix.Contains(addr) {
			b := addr.As16()
			return IsPrivate(netip.AddrFrom4([4]byte(b[e.offset : e.offset+4])))
		}
	}
	longest := network{}
	for _, n := range networks {
		if n.Contains(addr) && (!longest.IsValid() || n.Bits() > longest.Bits()) {
			longest = n
		}
	}
	return !longest.public
}

// OptionAllowPrivate is the option that opens a Fence, as users know it.
const OptionAllowPrivate = "allow_private_ns"

// Fence keeps us from asking where a public CA does not.
type Fence struct {
	Open    bool           // all are asked
	Private []netip.Prefix // networks that count as private, beside those of IsPrivate
}

// Stops reports whether a name server at addr is not asked.
func (f Fence) Stops(addr netip.Addr) bool {
	if f.Open {
		return false
	}
	addr = addr.Unmap().WithZone("")
	for _, p := range f.Private {
		if p.Contains(addr) {
			return true
		}
	}
	return IsPrivate(addr)
}
