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
			var ip netip.Addr
			switch rr := rr.(type) {
			case *dns.A:
				ip, _ = netip.AddrFromSlice(rr.A)
			case *dns.AAAA:
				ip, _ = netip.AddrFromSlice(rr.AAAA)
			default:
				continue
			}
			h.addrs = append(h.addrs, ip.Unmap())
			h.TTL = min(h.TTL, rr.Header().Ttl)
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
	f.cache.put(&cacheEntry{key: f.keyOf(kind, z.Name), zone: z, expires: z.expires})
}

// Adopt lets z, found through a delegation on which all servers above agree,
// be asked without asking them.
func (f *Finder) Adopt(z *Zone) {
	f.cache.put(&cacheEntry{key: f.key(z.Name), zone: z, expires: z.expires})
}

// Forget drops z where all its servers fail: it may have moved.
func (f *Finder) Forget(z *Zone) {
	if time.Since(z.fetched) >= minAgeToDrop {
		f.cache.drop(f.key(z.Name))
		f.cache.drop(f.keyOf(kindDelegated, z.Name))
	}
}
