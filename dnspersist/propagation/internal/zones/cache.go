package zones

import (
	"container/list"
	"context"
	"sync"
	"time"
)

// Bounds of the cache of zones.
const (
	maxCached     = 10_000
	minZoneTTL    = time.Minute
	maxZoneTTL    = time.Hour
	failureTTL    = 5 * time.Second
	minAgeToDrop  = 10 * time.Second // data this fresh would only be found again
	maxZoneServer = 32               // addresses asked in one zone

	flightPatience = time.Second
)

// sharedZones serves all Checkers of the process, so that a further name in a
// known zone costs no discovery, across configurations and reloads.
var sharedZones = newZoneCache(maxCached)

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
)

type cacheEntry struct {
	key     cacheKey
	zone    *Zone
	err     error
	found   string // of kindAnswer
	expires time.Time
}

// zoneCache is a least-recently-used cache with expiry, and locks that make
// concurrent askers share one discovery.
type zoneCache struct {
	limit int

	mu      sync.Mutex
	entries map[cacheKey]*list.Element
	order   list.List // of *cacheEntry, most recently used first
	flights map[cacheKey]*flight
}

// flight is a mutex whose waiters can give up.
type flight struct {
	sem  chan struct{}
	refs int
}

func newZoneCache(limit int) *zoneCache {
	return &zoneCache{
		limit:   limit,
		entries: make(map[cacheKey]*list.Element),
		flights: make(map[cacheKey]*flight),
	}
}

func (c *zoneCache) get(key cacheKey) (*cacheEntry, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	el, ok := c.entries[key]
	if !ok {
		return nil, false
	}
	entry := el.Value.(*cacheEntry)
	if !time.Now().Before(entry.expires) {
		c.order.Remove(el)
		delete(c.entries, key)
		return nil, false
	}
	c.order.MoveToFront(el)
	return entry, true
}

func (c *zoneCache) put(entry *cacheEntry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if el, ok := c.entries[entry.key]; ok {
		el.Value = entry
		c.order.MoveToFront(el)
		return
	}
	c.entries[entry.key] = c.order.PushFront(entry)
	for len(c.entries) > c.limit {
		last := c.order.Back()
		c.order.Remove(last)
		delete(c.entries, last.Value.(*cacheEntry).key)
	}
}

func (c *zoneCache) drop(key cacheKey) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if el, ok := c.entries[key]; ok {
		c.order.Remove(el)
		delete(c.entries, key)
	}
}

// lock lets one caller per key through at a time, for the others to find in
// the cache what it found. It is an economy and excludes nobody: who has
// waited for flightPatience goes ahead, so that a name whose servers are dead
// does not hold up its neighbours. Unlike a single-flight
// group it runs nothing in a goroutine of its own: a caller that gives up
// takes its queries with it, and the next one begins anew.
func (c *zoneCache) lock(ctx context.Context, key cacheKey) (unlock func(), err error) {
	c.mu.Lock()
	f := c.flights[key]
	if f == nil {
		f = &flight{sem: make(chan struct{}, 1)}
		c.flights[key] = f
	}
	f.refs++
	c.mu.Unlock()

	release := func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if f.refs--; f.refs == 0 {
			delete(c.flights, key)
		}
	}
	patience := time.NewTimer(flightPatience)
	defer patience.Stop()
	select {
	case f.sem <- struct{}{}:
		return func() { <-f.sem; release() }, nil
	case <-patience.C:
		return release, nil
	case <-ctx.Done():
		release()
		return nil, ctx.Err()
	}
}

// clampTTL turns a TTL in seconds into the time that zone data is kept.
func clampTTL(seconds uint32) time.Duration {
	return min(max(time.Duration(seconds)*time.Second, minZoneTTL), maxZoneTTL)
}

// Remember returns what find returns, from memory for as long as z is known, or for a minute if z is nil. What
// find is not sure of (ok is false) is not remembered, and empty.
func (f *Finder) Remember(what string, z *Zone, find func() (found string, ok bool)) string {
	key := f.keyOf(kindAnswer, what)
	if e, ok := f.cache.get(key); ok && e.zone == z {
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
	f.cache.put(&cacheEntry{key: key, zone: z, found: found, expires: expires})
	return found
}
