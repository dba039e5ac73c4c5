package propagation

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

// delegation is what servers of one zone say about a zone below it.
type delegation struct {
	zone  string
	hosts []string // empty if they are authoritative for it themselves
	glue  map[string][]netip.Addr
	ttl   uint32
	from  netip.Addr // a server that said so
	// signed says that the zone above may be: then this one may be, or be cut off from it by
	// a broken DS record, which only a resolver that validates tells.
	signed bool
}

// delegated returns the zone that del shows, with the union of the servers
// listed above and inside it: resolvers use either list. No resolver is asked
// for avoid or a name below it.
func (d *discovery) delegated(ctx context.Context, del delegation, avoid string) (*zone, error) {
	key := d.keyOf(kindDelegated, del.zone)
	unlock, err := d.cache.lock(ctx, key)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if e, ok := d.cache.get(key); ok && del.isKnownAs(e.zone) {
		return e.zone, nil
	}
	z := &zone{name: del.zone, signed: del.signed}
	ttl := del.ttl
	if len(del.hosts) == 0 {
		hosts, glue, nsTTL := d.nsFrom(ctx, del.from, del.zone)
		if len(hosts) == 0 {
			return nil, fmt.Errorf("finding the name servers of %s: %s serves the zone and shows no NS records of it", display(del.zone), del.from)
		}
		ttl = min(ttl, nsTTL, d.addHosts(ctx, z, hosts, glue, avoid))
	} else {
		ttl = min(ttl, d.addHosts(ctx, z, del.hosts, del.glue, avoid))
		ttl = min(ttl, d.addChildHosts(ctx, z, avoid))
	}
	if err := ask.CutShort(ctx); err != nil {
		return nil, err
	}
	d.store(kindDelegated, z, ttl)
	return z, nil
}

// isKnownAs reports whether z, found through an earlier delegation, will do for d: it has all
// the hosts of d, or is so fresh that a zone above that says something else at every question
// would have it looked up all the time.
func (d delegation) isKnownAs(z *zone) bool {
	if d.signed && !z.signed {
		return false
	}
	return time.Since(z.fetched) < minAgeToDrop || !slices.ContainsFunc(d.hosts, func(h string) bool {
		return !z.lists(h)
	})
}

// addChildHosts adds the hosts that the zone lists itself.
func (d *discovery) addChildHosts(ctx context.Context, z *zone, avoid string) uint32 {
	ttl := uint32(maxZoneTTL / time.Second)
	tries := 0
	for _, s := range z.servers() {
		if !s.addr.IsValid() || d.fence.stops(s.addr) {
			continue
		}
		if tries++; tries > childTries {
			break
		}
		hosts, glue, nsTTL := d.nsFrom(ctx, s.addr, z.name)
		if len(hosts) == 0 {
			continue
		}
		for i, h := range z.hosts {
			if !slices.Contains(hosts, h.name) {
				z.hosts[i].listed = "parent"
			}
		}
		hosts = slices.DeleteFunc(hosts, z.lists)
		least := min(ttl, nsTTL, d.addHosts(ctx, z, hosts, glue, avoid))
		for i, h := range z.hosts {
			if slices.Contains(hosts, h.name) {
				z.hosts[i].listed = "zone"
			}
		}
		return least
	}
	return ttl
}

// nsFrom asks one authoritative server for the name servers of its zone.
func (d *discovery) nsFrom(ctx context.Context, addr netip.Addr, zone string) ([]string, map[string][]netip.Addr, uint32) {
	ans, err := d.asker.Ask(ctx, dnsAddr(addr), zone, dns.TypeNS, false)
	if err != nil || !ans.Authoritative {
		return nil, nil, 0
	}
	hosts, ttl := nsRecords(ans.Answer, zone)
	return hosts, glueOf(ans.Extra), ttl
}

// hiddenCut asks a server of z that has the record in which zone name is.
// Where a server is authoritative for a zone and for one below it, its
// positive answers do not show the cut, and the servers that only the lower
// zone has would be missed. That there is none is remembered as long as z, so
// that the next rounds ask each server one question.
func (d *discovery) hiddenCut(ctx context.Context, z *zone, name string, addr netip.Addr) (delegation, bool) {
	none := d.keyOf(kindUncut, name)
	if e, ok := d.cache.get(none); ok && e.zone == z {
		return delegation{}, false
	}
	for n := name; isBelow(n, z.name); n = parent(n) {
		ans, err := d.asker.Ask(ctx, dnsAddr(addr), n, dns.TypeSOA, false)
		if err != nil {
			return delegation{}, false
		}
		if hasAlias(ans.Answer) {
			continue // the SOA is the target's, and name's zone is that of its parent
		}
		soa := soaOf(slices.Concat(ans.Answer, ans.Ns), n)
		if soa == nil || !ans.Authoritative {
			return delegation{}, false
		}
		owner := dns.CanonicalName(soa.Hdr.Name)
		if isBelow(owner, z.name) {
			return delegation{zone: owner, ttl: soa.Hdr.Ttl, from: addr}, true
		}
		d.cache.put(&cacheEntry{key: none, zone: z, expires: z.expires})
		break
	}
	return delegation{}, false
}
