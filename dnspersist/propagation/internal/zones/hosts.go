package zones

import (
	"cmp"
	"context"
	"hash/fnv"
	"io"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation/internal/ask"
)

const (
	maxZoneHosts = 13 // host names of one zone whose addresses are looked up
	maxUnnamed   = 4  // hosts without any address, before no further one is looked up
)

// hostAnswer is what was found of one host.
type hostAnswer struct {
	nsHost
	TTL uint32
}

// addHosts adds hosts to z with their addresses: those the resolvers know,
// and for hosts inside the zone also those that came with the delegation.
// Hosts at or below avoid are not asked for. It returns the least TTL.
//
// A zone has at most maxZoneHosts. Of more, a sample is looked up that changes by the day, and
// the others are left out: nothing waits for them.
func (f *Finder) addHosts(ctx context.Context, z *Zone, hosts []string, glue map[string][]netip.Addr, avoid string) uint32 {
	ttl := uint32(maxZoneTTL / time.Second)
	hosts = sampled(hosts, len(hosts), time.Now())
	few := max(min(len(hosts), maxZoneHosts-len(z.hosts)), 0)
	z.left = append(z.left, hosts[few:]...)
	hosts = hosts[:few]

	answers := make([]*hostAnswer, len(hosts))
	var (
		wg       sync.WaitGroup
		room     = make(chan struct{}, maxUnnamed)
		unnamed  atomic.Int32 // hosts without any address
		haveNone = func(h nsHost) bool { return len(h.addrs) == 0 }
	)
	for _, h := range z.hosts {
		if haveNone(h) {
			unnamed.Add(1)
		}
	}
	for i, h := range hosts {
		// as many at a time as may fail before the others are not looked up any more
		room <- struct{}{}
		wg.Go(func() {
			defer func() { <-room }()
			if unnamed.Load() >= maxUnnamed {
				return
			}
			a := &hostAnswer{nsHost: nsHost{name: h}, TTL: ttl}
			if dns.IsSubDomain(z.Name, h) {
				a.addrs = slices.Clone(glue[h])
			}
			if avoid == "" || !dns.IsSubDomain(avoid, h) {
				f.addresses(ctx, a)
			}
			if answers[i] = a; haveNone(a.nsHost) {
				unnamed.Add(1)
			}
		})
	}
	wg.Wait()

	for i, a := range answers {
		if a == nil {
			z.left = append(z.left, hosts[i])
			continue
		}
		slices.SortFunc(a.addrs, netip.Addr.Compare) // IPv4 first
		a.addrs = slices.Compact(a.addrs)
		a.addrs = slices.DeleteFunc(a.addrs, func(ip netip.Addr) bool { return !usable(ip) })
		a.addrs, a.more = bounded(a.addrs)
		if len(a.addrs) == 0 && a.problem == "" {
			a.problem = "the host has no address"
		}
		z.hosts = append(z.hosts, a.nsHost)
		ttl = min(ttl, a.TTL)
	}
	slices.SortFunc(z.hosts, func(a, b nsHost) int { return cmp.Compare(a.name, b.name) })
	return ttl
}

// sampled returns n of hosts, all for a day the same ones, in that day's order.
func sampled(hosts []string, n int, now time.Time) []string {
	if len(hosts) <= min(n, maxZoneHosts) {
		return hosts
	}
	day := now.UTC().Format(time.DateOnly)
	place := make(map[string]uint64, len(hosts))
	for _, h := range hosts {
		sum := fnv.New64a()
		_, _ = io.WriteString(sum, day+" "+h)
		place[h] = sum.Sum64()
	}
	hosts = slices.Clone(hosts)
	slices.SortFunc(hosts, func(a, b string) int { return cmp.Compare(place[a], place[b]) })
	return hosts[:n]
}

// bounded keeps no more of a host's addresses than are asked of a zone, for whoever controls
// it chooses how many there are; of both families where it has both. addrs are sorted. It
// returns how many are left out.
func bounded(addrs []netip.Addr) (kept []netip.Addr, more int) {
	if len(addrs) <= maxZoneServer {
		return addrs, 0
	}
	four := slices.IndexFunc(addrs, netip.Addr.Is6) // so many are IPv4
	if four < 0 {
		four = len(addrs)
	}
	keep := min(four, max(maxZoneServer/2, maxZoneServer-(len(addrs)-four)))
	kept = slices.Concat(addrs[:keep], addrs[four:four+maxZoneServer-keep])
	return kept, len(addrs) - len(kept)
}

// addresses asks for both families at once.
func (f *Finder) addresses(ctx context.Context, h *hostAnswer) {
	var (
		wg    sync.WaitGroup
		types = []uint16{dns.TypeA, dns.TypeAAAA}
		found = make([]ask.Answer, len(types))
		errs  = make([]error, len(types))
	)
	for i, t := range types {
		wg.Go(func() { found[i], _, errs[i] = f.Resolvers.Query(ctx, h.name, t) })
	}
	wg.Wait()
	for i := range types {
		if errs[i] != nil {
			h.TTL = 0
			if h.problem == "" {
				h.problem = errs[i].Error()
			}
			continue
		}
		for _, rr := range found[i].Answer {
			// Whatever the owner: a host that is a CNAME is not allowed, and
			// resolvers follow it.
			if ip, ok := addrOf(rr); ok {
				h.addrs = append(h.addrs, ip)
				h.TTL = min(h.TTL, rr.Header().Ttl)
			}
		}
	}
}

// store caches z. One without any address is kept only as long as a failure.
func (f *Finder) store(kind cacheKind, z *Zone, ttl uint32) {
	z.fetched = time.Now()
	keep := clampTTL(ttl)
	if !slices.ContainsFunc(z.hosts, func(h nsHost) bool { return len(h.addrs) > 0 }) {
		keep = failureTTL
	}
	z.expires = z.fetched.Add(keep)
	f.cache.Put(f.keyOf(kind, z.Name), known{zone: z}, 1, z.expires)
}

// Adopt lets z, found through a delegation on which all servers above agree,
// be asked without asking them.
func (f *Finder) Adopt(z *Zone) {
	f.cache.Put(f.keyOf(kindZone, z.Name), known{zone: z}, 1, z.expires)
}

// Forget drops z where all its servers fail: it may have moved.
func (f *Finder) Forget(z *Zone) {
	if time.Since(z.fetched) >= minAgeToDrop {
		f.cache.Drop(f.keyOf(kindZone, z.Name))
		f.cache.Drop(f.keyOf(kindDelegated, z.Name))
	}
}

// Outdate has zones found anew of which what is known was found longer ago than age.
func (f *Finder) Outdate(age time.Duration, names ...string) {
	for _, name := range names {
		for _, kind := range []cacheKind{kindZone, kindDelegated} {
			if e, ok := f.cache.Get(f.keyOf(kind, name)); ok && time.Since(e.zone.fetched) >= max(age, minAgeToDrop) {
				f.cache.Drop(f.keyOf(kind, name))
			}
		}
	}
}

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
	return IsPrivate(addr) || slices.ContainsFunc(f.Private, func(p netip.Prefix) bool { return p.Contains(addr) })
}
