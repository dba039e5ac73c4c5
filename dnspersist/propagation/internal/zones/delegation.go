package zones

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/miekg/dns"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation/internal/ask"
)

// childTries is how many servers of a delegated zone are asked for its own
// list of servers.
const childTries = 3

// Delegation is what servers of one zone have of a zone below it.
type Delegation struct {
	Zone  string
	Hosts []string // empty if they are authoritative for it themselves
	Glue  map[string][]netip.Addr
	TTL   uint32
	From  netip.Addr // a server that has it
	// Signed is set if the zone above may be: then this one may be, or be cut off from it by
	// a broken DS record, which only a resolver that validates shows.
	Signed bool
}

// Delegated returns the zone that del shows, with the union of the servers
// listed above and inside it: resolvers use either list. No resolver is asked
// for avoid or a name below it.
func (f *Finder) Delegated(ctx context.Context, del Delegation, avoid string) (*Zone, error) {
	// each server may have shown others, and each host costs questions
	slices.Sort(del.Hosts)
	del.Hosts = slices.Compact(del.Hosts)
	del.Hosts = sampled(del.Hosts, min(len(del.Hosts), maxZoneServer), time.Now())
	key := f.keyOf(kindDelegated, del.Zone)
	unlock, err := f.cache.Lock(ctx, key)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if e, ok := f.cache.Get(key); ok && del.isKnownAs(e.zone) {
		return e.zone, nil
	}
	z := &Zone{Name: del.Zone, Signed: del.Signed}
	ttl := del.TTL
	if len(del.Hosts) == 0 {
		hosts, glue, nsTTL := f.nsFrom(ctx, del.From, del.Zone)
		if len(hosts) == 0 {
			return nil, fmt.Errorf("finding the name servers of %s: %s serves the zone and shows no NS records of it", Display(del.Zone), del.From)
		}
		ttl = min(ttl, nsTTL, f.addHosts(ctx, z, hosts, glue, avoid))
	} else {
		ttl = min(ttl, f.addHosts(ctx, z, del.Hosts, del.Glue, avoid))
		ttl = min(ttl, f.addChildHosts(ctx, z, avoid))
	}
	if err := ask.CutShort(ctx); err != nil {
		return nil, err
	}
	f.store(kindDelegated, z, ttl)
	return z, nil
}

// isKnownAs reports whether z, found through an earlier delegation, will do for d: it has all
// the hosts of d, or is so fresh that a zone above with another answer to every question
// would have it looked up all the time.
func (d Delegation) isKnownAs(z *Zone) bool {
	if d.Signed && !z.Signed {
		return false
	}
	return time.Since(z.fetched) < minAgeToDrop || !slices.ContainsFunc(d.Hosts, func(h string) bool {
		return !z.lists(h)
	})
}

// addChildHosts adds the hosts that the zone lists itself.
func (f *Finder) addChildHosts(ctx context.Context, z *Zone, avoid string) uint32 {
	ttl := uint32(maxZoneTTL / time.Second)
	servers := f.addrsOf(z)
	for _, addr := range servers[:min(len(servers), childTries)] {
		hosts, glue, nsTTL := f.nsFrom(ctx, addr, z.Name)
		if len(hosts) == 0 {
			continue
		}
		z.mark("parent", false, hosts)
		hosts = slices.DeleteFunc(hosts, z.lists)
		least := min(ttl, nsTTL, f.addHosts(ctx, z, hosts, glue, avoid))
		z.mark("zone", true, hosts)
		return least
	}
	return ttl
}

// nsFrom asks one authoritative server for the name servers of its zone.
func (f *Finder) nsFrom(ctx context.Context, addr netip.Addr, zone string) ([]string, map[string][]netip.Addr, uint32) {
	ans, err := f.asker.Ask(ctx, DNSAddr(addr), zone, dns.TypeNS, false)
	if err != nil || !ans.Authoritative {
		return nil, nil, 0
	}
	hosts, ttl := NSRecords(ans.Answer, zone)
	return hosts, GlueOf(ans.Extra), ttl
}

// HiddenCut asks a server of z that has the record in which zone name is.
// Where a server is authoritative for a zone and for one below it, its
// positive answers do not show the cut, and the servers that only the lower
// zone has would be missed. That there is none is remembered as long as z, so
// that the next rounds ask each server one question.
func (f *Finder) HiddenCut(ctx context.Context, z *Zone, name string, addr netip.Addr) (Delegation, bool) {
	none := f.keyOf(kindUncut, name)
	if e, ok := f.cache.Get(none); ok && e.zone == z {
		return Delegation{}, false
	}
	for n := name; IsBelow(n, z.Name); n = Parent(n) {
		ans, err := f.asker.Ask(ctx, DNSAddr(addr), n, dns.TypeSOA, false)
		if err != nil {
			return Delegation{}, false
		}
		if HasAlias(ans.Answer) {
			continue // the SOA is the target's, and name's zone is that of its parent
		}
		soa := SOAOf(slices.Concat(ans.Answer, ans.Ns), n)
		if soa == nil || !ans.Authoritative {
			return Delegation{}, false
		}
		owner := dns.CanonicalName(soa.Hdr.Name)
		if IsBelow(owner, z.Name) {
			return Delegation{Zone: owner, TTL: soa.Hdr.Ttl, From: addr}, true
		}
		f.cache.Put(none, known{zone: z}, 1, z.expires)
		break
	}
	return Delegation{}, false
}

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
	denied := 0
	servers := f.parentServers(ctx, Parent(zone))
	for _, addr := range servers[:min(len(servers), parentTries)] {
		if ctx.Err() != nil {
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
	if e, ok := f.cache.Get(key); ok {
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
		f.cache.Put(key, known{zone: z}, 1, z.fetched.Add(keep))
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
	z.mark("zone", false, above.hosts)
	if missing := slices.DeleteFunc(slices.Clone(above.hosts), z.lists); len(missing) > 0 {
		f.addHosts(ctx, z, missing, above.glue, "")
		z.mark("parent", true, missing)
	}
}
