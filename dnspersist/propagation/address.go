package propagation

import (
	"net/netip"
)

// Networks that netip's own predicates do not know as unreachable for a
// public CA.
var privateNetworks = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),     // this network, RFC 1122
	netip.MustParsePrefix("100.64.0.0/10"), // shared by carriers, RFC 6598
	netip.MustParsePrefix("240.0.0.0/4"),   // reserved, broadcast
	netip.MustParsePrefix("fec0::/10"),     // site-local, RFC 3879
}

// Prefixes that carry an IPv4 address, and where in the address.
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

// isPrivate reports whether a public CA cannot or will not ask a server at
// addr. Addresses for documentation count as public.
func isPrivate(addr netip.Addr) bool {
	addr = addr.Unmap()
	if addr.IsPrivate() || addr.IsLoopback() || addr.IsLinkLocalUnicast() || !usable(addr) {
		return true
	}
	for _, p := range privateNetworks {
		if p.Contains(addr) {
			return true
		}
	}
	for _, e := range embeddedIPv4 {
		if e.prefix.Contains(addr) {
			b := addr.As16()
			return isPrivate(netip.AddrFrom4([4]byte(b[e.offset : e.offset+4])))
		}
	}
	return false
}
