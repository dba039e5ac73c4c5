// Package zones finds the zone that a name is in, and the addresses of its servers.
//
// A [Finder] begins with resolvers and goes on without them where answers show a zone below, for a
// resolver that is asked for a name remembers that it does not exist. It asks the zone above for
// servers that only that one lists, since a CA's resolver may use them, and it keeps what it
// learns for the whole process: a further name in a known zone costs no question.
package zones

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
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation/internal/lru"
)

// Codes of what keeps a zone from being found.
const (
	CodeNotDelegated   ask.Code = "domain_not_delegated"
	CodeZoneUnknown    ask.Code = "zone_unknown"
	CodeResolverFailed ask.Code = "resolver_failed"
	CodeBogus          ask.Code = "dnssec_bogus"
)

// Zone is a zone with its name servers. It is not changed once cached.
type Zone struct {
	Name    string // canonical
	hosts   []nsHost
	left    []string // hosts that are not looked up, as there are so many
	Signed  bool     // the zone above has a DS record of it, or may have
	Denied  string   // the zone above, if this one does not exist there
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

// Server is one address of one host.
type Server struct {
	Host    string
	Addr    netip.Addr // invalid if the host has none
	Problem string
	Listed  string
}

// Servers lists the addresses of z, the first of each host first, so that
// who goes through them one by one has seen every host soon, and so that the
// limit hits further addresses before further hosts.
func (z *Zone) Servers() []Server {
	var all []Server
	for i, more := 0, true; more; i++ {
		more = false
		for _, h := range z.hosts {
			switch {
			case i < len(h.addrs):
				all = append(all, Server{Host: h.name, Addr: h.addrs[i], Listed: h.listed})
				more = true
			case i == 0:
				all = append(all, Server{Host: h.name, Problem: h.problem, Listed: h.listed})
			}
		}
	}
	return all[:min(len(all), maxZoneServer)]
}

// lists reports whether a host is known to be one of z, looked up or not.
func (z *Zone) lists(host string) bool {
	return slices.Contains(z.left, host) || slices.ContainsFunc(z.hosts, func(h nsHost) bool { return h.name == host })
}

// mark notes where alone the hosts of z are listed that are, or are not, among hosts.
func (z *Zone) mark(listed string, among bool, hosts []string) {
	for i, h := range z.hosts {
		if slices.Contains(hosts, h.name) == among {
			z.hosts[i].listed = listed
		}
	}
}

// Dropped is how many addresses are too many, a host that was not looked up being one.
func (z *Zone) Dropped() int {
	n := 0
	for _, h := range z.hosts {
		n += max(len(h.addrs)+h.more, 1)
	}
	return len(z.left) + max(n-maxZoneServer, 0)
}

// Finder finds zones and their servers. It is safe for concurrent use.
type Finder struct {
	asker     ask.Asker
	Resolvers *Resolvers
	cache     *zoneCache
	Fence     Fence
}

// NewFinder returns a Finder that shares what it learns with all others of the process that see
// the same world: through the same exchanger and the same resolvers.
func NewFinder(a ask.Asker, configured []string, f Fence) *Finder {
	return &Finder{asker: a, Resolvers: newResolvers(a, configured), cache: sharedZones, Fence: f}
}

// Finds reports whether o finds the same as f: it asks the same resolvers, and servers in the same networks.
func (f *Finder) Finds(o *Finder) bool {
	return f.keyOf(kindZone, "") == o.keyOf(kindZone, "") && f.Fence.Open == o.Fence.Open && slices.Equal(f.Fence.Private, o.Fence.Private)
}

func (f *Finder) keyOf(kind cacheKind, name string) cacheKey {
	return cacheKey{exchanger: f.asker.Exchanger, resolvers: f.Resolvers.key(), name: name, kind: kind}
}

// known returns the longest cached zone that contains name. It may be too
// short, if there is a cut below it: that shows in the answers of its
// servers. A top-level domain is used only for itself, as everything has a
// cut below it.
func (f *Finder) known(name string) *Zone {
	for n := name; n != "."; n = Parent(n) {
		if n != name && dns.CountLabel(n) < 2 {
			break
		}
		if e, ok := f.cache.Get(f.keyOf(kindZone, n)); ok {
			return e.zone
		}
	}
	return nil
}

// Find returns the zone that contains name, with its servers. Resolvers are
// asked for host, which is name or an ancestor, and for what is above it;
// never for name, unless it is host.
func (f *Finder) Find(ctx context.Context, name, host string) (*Zone, error) {
	if z := f.known(name); z != nil {
		return z, nil
	}
	// Names that start together and share a zone wait for one discovery.
	unlock, err := f.cache.Lock(ctx, f.keyOf(kindZone, HostAbove(host)))
	if err != nil {
		return nil, err
	}
	defer unlock()
	if z := f.known(name); z != nil {
		return z, nil
	}
	failure := f.keyOf(kindFailure, host)
	if e, ok := f.cache.Get(failure); ok {
		return nil, e.err
	}

	z, err := f.lookup(ctx, host)
	if err != nil {
		if ask.CutShort(ctx) == nil {
			f.cache.Put(failure, known{err: err}, 1, time.Now().Add(failureTTL))
		}
		return nil, err
	}
	return z, nil
}

func (f *Finder) lookup(ctx context.Context, host string) (*Zone, error) {
	cut, ttl, err := f.cut(ctx, host)
	if _, ok := errors.AsType[*nameError](err); ok {
		if del, ok := f.fromAbove(ctx, host); ok {
			if z, err := f.Delegated(ctx, del, ""); err == nil {
				f.Adopt(z)
				return z, nil
			}
		}
	}
	if err != nil {
		return nil, err
	}
	if e, ok := f.cache.Get(f.keyOf(kindZone, cut)); ok {
		return e.zone, nil
	}
	ans, from, err := f.Resolvers.Query(ctx, cut, dns.TypeNS)
	if err != nil {
		return nil, fmt.Errorf("finding the name servers of %s: %w", Display(cut), err)
	}
	hosts, nsTTL := NSRecords(ans.Answer, cut)
	if len(hosts) == 0 {
		return nil, fmt.Errorf("finding the name servers of %s: %s shows no NS records (%s); check the delegation, or set resolvers", Display(cut), from, ask.RcodeText(ans.Msg))
	}
	z := &Zone{Name: cut}
	var above parentView
	var wg sync.WaitGroup
	wg.Go(func() { above = f.askParent(ctx, cut) })
	addrTTL := f.addHosts(ctx, z, hosts, nil, "")
	wg.Wait()
	f.compare(ctx, z, above)
	if err := ask.CutShort(ctx); err != nil {
		return nil, err
	}
	if z.Denied != "" {
		ttl = 0 // about to be repaired, one hopes
	}
	f.store(kindZone, z, min(ttl, nsTTL, addrTTL))
	return z, nil
}

// cut walks up from host to the first name that a resolver shows an SOA
// record of.
func (f *Finder) cut(ctx context.Context, host string) (string, uint32, error) {
	var last string
	for n := host; n != "."; n = Parent(n) {
		ans, from, err := f.Resolvers.Query(ctx, n, dns.TypeSOA)
		if err != nil {
			return "", 0, ask.Coded(CodeResolverFailed, fmt.Errorf("no SOA found for %s: %w", Display(host), err))
		}
		last = fmt.Sprintf("from %s: %s for %s", from, ask.RcodeText(ans.Msg), Display(n))
		if HasAlias(ans.Answer) {
			// The SOA record beside it is that of the target's zone.
			continue
		}
		for _, rr := range slices.Concat(ans.Answer, ans.Ns) {
			soa, ok := rr.(*dns.SOA)
			if !ok || !dns.IsSubDomain(soa.Hdr.Name, n) {
				continue
			}
			if soa.Hdr.Name == "." {
				return "", 0, ask.Coded(CodeNotDelegated, fmt.Errorf("no SOA found for %s %s: its top-level domain does not exist there; check the name, or set resolvers that know it", Display(host), last))
			}
			return dns.CanonicalName(soa.Hdr.Name), soa.Hdr.Ttl, nil
		}
	}
	return "", 0, ask.Coded(CodeZoneUnknown, fmt.Errorf("no SOA found for %s or above, last %s; set resolvers", Display(host), last))
}

// Bounds of the cache of zones.
const (
	maxCached     = 4096 // of what is under way: who waits for a record keeps what was found
	minZoneTTL    = time.Minute
	maxZoneTTL    = time.Hour
	failureTTL    = 5 * time.Second
	minAgeToDrop  = 10 * time.Second // data this fresh would only be found again
	maxZoneServer = 32               // addresses asked in one zone
)

// sharedZones serves all Checkers of the process, so that a further name in a
// known zone costs no discovery, across configurations and reloads.
var sharedZones = lru.New[cacheKey, known](maxCached)

// cacheKey names what is cached, as seen through one set of resolvers: two
// sets may see two worlds.
type cacheKey struct {
	exchanger any
	resolvers string
	name      string
	kind      cacheKind
}

type cacheKind int

const (
	kindZone      cacheKind = iota // a zone, to be asked for every name below
	kindDelegated                  // a zone that is to be reached through the zone above
	kindFailure                    // a host whose zone could not be found
	kindUncut                      // a name in whose zone no hidden cut was found
	kindAnswer                     // what was found out about a name
	kindParent                     // a zone above, to be asked for delegations
	kindCAA                        // a name whose CAA records were asked for
)

// known is what is cached of a name.
type known struct {
	zone  *Zone
	err   error
	found string // of kindAnswer
}

type zoneCache = lru.Cache[cacheKey, known]

// clampTTL turns a TTL in seconds into the time that zone data is kept.
func clampTTL(seconds uint32) time.Duration {
	return min(max(time.Duration(seconds)*time.Second, minZoneTTL), maxZoneTTL)
}

// Remember returns what find returns, from memory for as long as z is known, or for a minute if z is nil. What
// find is not sure of (ok is false) is not remembered, and empty.
func (f *Finder) Remember(what string, z *Zone, find func() (found string, ok bool)) string {
	key := f.keyOf(kindAnswer, what)
	if e, ok := f.cache.Get(key); ok && e.zone == z {
		return e.found
	}
	found, ok := find()
	if !ok {
		return ""
	}
	expires := time.Now().Add(minZoneTTL)
	if z != nil {
		expires = z.expires
	}
	f.cache.Put(key, known{zone: z, found: found}, 1, expires)
	return found
}
