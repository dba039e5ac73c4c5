package propagation

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/miekg/dns"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation/internal/ask"
)

// zone is a zone with its name servers. It is not changed once cached.
type zone struct {
	name    string // canonical
	hosts   []nsHost
	left    []string // hosts that are not looked up, as there are so many
	signed  bool     // the zone above has a DS record of it, or may have
	denied  string   // the zone above, if that says that this one does not exist
	fetched time.Time
	expires time.Time
}

type nsHost struct {
	name    string       // canonical
	addrs   []netip.Addr // at most maxZoneServer
	more    int          // addresses beyond that
	problem string       // why there is no address
	listed  string       // "parent" or "zone" if only that one lists it
}

// server is one address of one host.
type server struct {
	host    string
	addr    netip.Addr // invalid if the host has none
	problem string
	listed  string
}

// servers lists the addresses of z, the first of each host first, so that
// who goes through them one by one has seen every host soon, and so that the
// limit hits further addresses before further hosts.
func (z *zone) servers() []server {
	var all []server
	for i, more := 0, true; more; i++ {
		more = false
		for _, h := range z.hosts {
			switch {
			case i < len(h.addrs):
				all = append(all, server{host: h.name, addr: h.addrs[i], listed: h.listed})
				more = true
			case i == 0:
				all = append(all, server{host: h.name, problem: h.problem, listed: h.listed})
			}
		}
	}
	return all[:min(len(all), maxZoneServer)]
}

// lists reports whether a host is known to be one of z, looked up or not.
func (z *zone) lists(host string) bool {
	return slices.Contains(z.left, host) || slices.ContainsFunc(z.hosts, func(h nsHost) bool { return h.name == host })
}

// dropped is how many addresses are too many, a host that was not looked up being one.
func (z *zone) dropped() int {
	n := 0
	for _, h := range z.hosts {
		n += max(len(h.addrs)+h.more, 1)
	}
	return len(z.left) + max(n-maxZoneServer, 0)
}

// discovery finds zones and their servers.
type discovery struct {
	asker     ask.Asker
	resolvers *resolvers
	cache     *zoneCache
	fence     fence
}

func (d *discovery) key(name string) cacheKey { return d.keyOf(kindZone, name) }

func (d *discovery) keyOf(kind cacheKind, name string) cacheKey {
	return cacheKey{exchanger: d.asker.Exchanger, resolvers: d.resolvers.key(), name: name, kind: kind}
}

// known returns the longest cached zone that contains name. It may be too
// short, if there is a cut below it: that shows in the answers of its
// servers. A top-level domain is used only for itself, as everything has a
// cut below it.
func (d *discovery) known(name string) *zone {
	for n := name; n != "."; n = parent(n) {
		if n != name && dns.CountLabel(n) < 2 {
			break
		}
		if e, ok := d.cache.get(d.key(n)); ok {
			return e.zone
		}
	}
	return nil
}

// find returns the zone that contains name, with its servers. Resolvers are
// asked for host, which is name or an ancestor, and for what is above it;
// never for name, unless it is host.
func (d *discovery) find(ctx context.Context, name, host string) (*zone, error) {
	if z := d.known(name); z != nil {
		return z, nil
	}
	// Names that start together and share a zone wait for one discovery.
	flightName := host
	if dns.CountLabel(host) > 2 {
		flightName = parent(host)
	}
	unlock, err := d.cache.lock(ctx, d.key(flightName))
	if err != nil {
		return nil, err
	}
	defer unlock()
	if z := d.known(name); z != nil {
		return z, nil
	}
	failure := d.keyOf(kindFailure, host)
	if e, ok := d.cache.get(failure); ok {
		return nil, e.err
	}

	z, err := d.lookup(ctx, host)
	if err != nil {
		if ask.CutShort(ctx) == nil {
			d.cache.put(&cacheEntry{key: failure, err: err, expires: time.Now().Add(failureTTL)})
		}
		return nil, err
	}
	return z, nil
}

func (d *discovery) lookup(ctx context.Context, host string) (*zone, error) {
	cut, ttl, err := d.cut(ctx, host)
	if _, ok := errors.AsType[*nameError](err); ok {
		if del, ok := d.fromAbove(ctx, host); ok {
			if z, err := d.delegated(ctx, del, ""); err == nil {
				d.adopt(z)
				return z, nil
			}
		}
	}
	if err != nil {
		return nil, err
	}
	if e, ok := d.cache.get(d.key(cut)); ok {
		return e.zone, nil
	}
	ans, from, err := d.resolvers.query(ctx, cut, dns.TypeNS)
	if err != nil {
		return nil, fmt.Errorf("finding the name servers of %s: %w", display(cut), err)
	}
	hosts, nsTTL := nsRecords(ans.Answer, cut)
	if len(hosts) == 0 {
		return nil, fmt.Errorf("finding the name servers of %s: %s shows no NS records (%s); check the delegation, or set resolvers", display(cut), from, ask.RcodeText(ans.Msg))
	}
	z := &zone{name: cut}
	var above parentView
	var wg sync.WaitGroup
	wg.Go(func() { above = d.askParent(ctx, cut) })
	addrTTL := d.addHosts(ctx, z, hosts, nil, "")
	wg.Wait()
	d.compare(ctx, z, above)
	if err := ask.CutShort(ctx); err != nil {
		return nil, err
	}
	if z.denied != "" {
		ttl = 0 // about to be repaired, one hopes
	}
	d.store(kindZone, z, min(ttl, nsTTL, addrTTL))
	return z, nil
}

// cut walks up from host to the first name that a resolver shows an SOA
// record of.
func (d *discovery) cut(ctx context.Context, host string) (string, uint32, error) {
	var last string
	for n := host; n != "."; n = parent(n) {
		ans, from, err := d.resolvers.query(ctx, n, dns.TypeSOA)
		if err != nil {
			return "", 0, ask.Coded(CodeResolverFailed, fmt.Errorf("no SOA found for %s: %w", display(host), err))
		}
		last = fmt.Sprintf("from %s: %s for %s", from, ask.RcodeText(ans.Msg), display(n))
		if hasAlias(ans.Answer) {
			// The SOA record beside it is that of the target's zone.
			continue
		}
		for _, rr := range slices.Concat(ans.Answer, ans.Ns) {
			soa, ok := rr.(*dns.SOA)
			if !ok || !dns.IsSubDomain(soa.Hdr.Name, n) {
				continue
			}
			if soa.Hdr.Name == "." {
				return "", 0, ask.Coded(CodeNotDelegated, fmt.Errorf("no SOA found for %s %s: its top-level domain does not exist there; check the name, or set resolvers that know it", display(host), last))
			}
			return dns.CanonicalName(soa.Hdr.Name), soa.Hdr.Ttl, nil
		}
	}
	return "", 0, ask.Coded(CodeZoneUnknown, fmt.Errorf("no SOA found for %s or above, last %s; set resolvers", display(host), last))
}
