package zones

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/miekg/dns"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation/internal/ask"
)

const (
	// parentHosts and parentTries are how many servers of the zone above are looked up and
	// asked: it is usually a top-level domain with many.
	parentHosts = 3
	parentTries = 2
	// parentPatience bounds the comparison with the zone above, which is nice to have.
	parentPatience = 3 * time.Second
	// parentFailureTTL is how long a zone above that could not be asked is left alone.
	parentFailureTTL = 10 * time.Minute
)

// parentView is what the zone above has of a zone.
type parentView struct {
	hosts  []string // empty if it could not be asked
	glue   map[string][]netip.Addr
	signed bool
	denies string // the zone above, if there is no such zone in it
}

// askParent asks a server of the zone above for its delegation, and the resolvers whether
// that is signed. Resolvers use the list above as well as the zone's own: a server that is
// listed only there and has old data makes a CA fail now and then.
func (f *Finder) askParent(ctx context.Context, zone string) parentView {
	var v parentView
	if dns.CountLabel(zone) < 2 {
		return v
	}
	ctx, cancel := context.WithTimeout(ctx, parentPatience)
	defer cancel()
	if ans, _, err := f.Resolvers.Query(ctx, zone, dns.TypeDS); err == nil {
		v.signed = slices.ContainsFunc(ans.Answer, func(rr dns.RR) bool {
			return rr.Header().Rrtype == dns.TypeDS && dns.CanonicalName(rr.Header().Name) == zone
		})
	}
	denied, tries := 0, 0
	for _, addr := range f.parentServers(ctx, Parent(zone)) {
		if tries++; tries > parentTries || ctx.Err() != nil {
			break
		}
		ans, err := f.asker.Ask(ctx, DNSAddr(addr), zone, dns.TypeNS, false)
		if err != nil {
			continue
		}
		if soa := SOAOf(ans.Ns, zone); ans.Authoritative && ans.Rcode == dns.RcodeNameError && soa != nil && IsBelow(zone, dns.CanonicalName(soa.Hdr.Name)) {
			denied++
			v.denies = dns.CanonicalName(soa.Hdr.Name)
			continue // one server may be wrong
		}
		if ans.Authoritative || ans.Rcode != dns.RcodeSuccess {
			// One that serves both zones answers for the lower one.
			denied = -parentTries
			continue
		}
		if hosts, _ := NSRecords(ans.Ns, zone); len(hosts) > 0 {
			v.hosts, v.glue, v.denies = hosts, GlueOf(ans.Extra), ""
			return v
		}
	}
	if denied <= 0 {
		v.denies = ""
	}
	return v
}

// fromAbove asks the zone above for where host is delegated to. For a name on which resolvers
// fail: if its servers are at fault, they can be named only when found without resolvers.
func (f *Finder) fromAbove(ctx context.Context, host string) (Delegation, bool) {
	ctx, cancel := context.WithTimeout(ctx, parentPatience)
	defer cancel()
	for n := Parent(host); n != "." && ctx.Err() == nil; n = Parent(n) {
		servers := f.parentServers(ctx, n)
		for _, addr := range servers[:min(len(servers), parentTries)] {
			ans, err := f.asker.Ask(ctx, DNSAddr(addr), host, dns.TypeNS, false)
			if err != nil || ans.Authoritative || ans.Rcode != dns.RcodeSuccess {
				continue
			}
			cut := CutOf(ans.Ns, host)
			if cut == "" || !dns.IsSubDomain(n, cut) || (cut == n && dns.CountLabel(n) < 2) {
				continue
			}
			hosts, ttl := NSRecords(ans.Ns, cut)
			// Resolvers fail for it, so they are not asked for its DS record.
			return Delegation{Zone: cut, Hosts: hosts, Glue: GlueOf(ans.Extra), TTL: ttl, From: addr, Signed: true}, true
		}
	}
	return Delegation{}, false
}

// parentServers returns addresses of a few servers of the zone that contains name.
func (f *Finder) parentServers(ctx context.Context, name string) []netip.Addr {
	key := f.keyOf(kindParent, name)
	if e, ok := f.cache.get(key); ok {
		return f.addrsOf(e.zone)
	}
	z := &Zone{Name: name, fetched: time.Now()}
	keep := parentFailureTTL
	if cut, ttl, err := f.cut(ctx, name); err == nil {
		z.Name = cut
		if ans, _, err := f.Resolvers.Query(ctx, cut, dns.TypeNS); err == nil {
			hosts, nsTTL := NSRecords(ans.Answer, cut)
			ttl = min(ttl, nsTTL, f.addHosts(ctx, z, hosts[:min(len(hosts), parentHosts)], nil, ""))
			keep = clampTTL(ttl)
		}
	}
	if ask.CutShort(ctx) == nil {
		f.cache.put(&cacheEntry{key: key, zone: z, expires: z.fetched.Add(keep)})
	}
	return f.addrsOf(z)
}

// addrsOf lists the addresses of a zone's servers that may be asked.
func (f *Finder) addrsOf(z *Zone) []netip.Addr {
	var all []netip.Addr
	for _, s := range z.Servers() {
		if s.Addr.IsValid() && !f.Fence.Stops(s.Addr) {
			all = append(all, s.Addr)
		}
	}
	return all
}

// compare adds to a zone the servers that only the zone above lists, and marks hosts that
// only one of them does.
func (f *Finder) compare(ctx context.Context, z *Zone, above parentView) {
	z.Signed, z.Denied = above.signed, above.denies
	if len(above.hosts) == 0 {
		return
	}
	for i, h := range z.hosts {
		if !slices.Contains(above.hosts, h.name) {
			z.hosts[i].listed = "zone"
		}
	}
	var missing []string
	for _, h := range above.hosts {
		if !z.lists(h) {
			missing = append(missing, h)
		}
	}
	if len(missing) == 0 {
		return
	}
	f.addHosts(ctx, z, missing, above.glue, "")
	for i, h := range z.hosts {
		if slices.Contains(missing, h.name) {
			z.hosts[i].listed = "parent"
		}
	}
}
