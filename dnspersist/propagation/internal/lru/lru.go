// Package lru has a cache that is bounded and forgets: what servers answer is kept for as long as they say,
// and whoever controls them cannot make it grow.
package lru

import (
	"container/list"
	"context"
	"sync"
	"time"
)

// Cache keeps what was used last, up to a weight, and each entry for its time. It is safe for
// concurrent use.
type Cache[K comparable, V any] struct {
	most int

	mu      sync.Mutex
	entries map[K]*list.Element
	order   list.List // of *entry[K, V], what was used last first
	weight  int
	flights map[K]*flight
}

type entry[K comparable, V any] struct {
	key     K
	value   V
	weight  int
	expires time.Time
}

// flight is a mutex whose waiters can give up.
type flight struct {
	sem  chan struct{}
	refs int
}

// New returns a Cache for entries that weigh at most so much together.
func New[K comparable, V any](most int) *Cache[K, V] {
	return &Cache[K, V]{most: most, entries: make(map[K]*list.Element), flights: make(map[K]*flight)}
}

// Get returns the value of a key, if it is there and has not expired.
func (c *Cache[K, V]) Get(key K) (value V, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	el := c.entries[key]
	if el == nil {
		return value, false
	}
	e := el.Value.(*entry[K, V])
	if !time.Now().Before(e.expires) {
		c.remove(el)
		return value, false
	}
	c.order.MoveToFront(el)
	return e.value, true
}

// Put keeps a value, which weighs so much.
func (c *Cache[K, V]) Put(key K, value V, weight int, expires time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if el := c.entries[key]; el != nil {
		c.remove(el)
	}
	c.entries[key] = c.order.PushFront(&entry[K, V]{key, value, weight, expires})
	for c.weight += weight; c.weight > c.most; {
		c.remove(c.order.Back())
	}
}

// Drop forgets a key.
func (c *Cache[K, V]) Drop(key K) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if el := c.entries[key]; el != nil {
		c.remove(el)
	}
}

func (c *Cache[K, V]) remove(el *list.Element) {
	e := c.order.Remove(el).(*entry[K, V])
	delete(c.entries, e.key)
	c.weight -= e.weight
}

// flightPatience is how long Lock waits.
const flightPatience = time.Second

// Lock lets one caller per key through at a time, for the others to find in
// the cache what it found. It is an economy and excludes nobody: who has
// waited for a second goes ahead, so that a name whose servers are dead
// does not hold up its neighbours. Unlike a single-flight
// group it runs nothing in a goroutine of its own: a caller that gives up
// takes its queries with it, and the next one begins anew.
func (c *Cache[K, V]) Lock(ctx context.Context, key K) (unlock func(), err error) {
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
