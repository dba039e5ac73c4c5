package propagation

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

func TestZoneCacheIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newZoneCache(3)
		key := func(i int) cacheKey { return cacheKey{name: fmt.Sprint(i)} }
		for i := range 5 {
			c.put(&cacheEntry{key: key(i), expires: time.Now().Add(time.Duration(i+1) * time.Minute)})
			c.get(key(0)) // in use
		}
		for i, want := range []bool{true, false, false, true, true} {
			if _, ok := c.get(key(i)); ok != want {
				t.Errorf("entry %d: %v, want %v", i, ok, want)
			}
		}
		time.Sleep(time.Minute)
		if _, ok := c.get(key(0)); ok {
			t.Error("an expired entry")
		}
		c.drop(key(3))
		if _, ok := c.get(key(3)); ok || len(c.entries) != 1 || c.order.Len() != 1 {
			t.Error("a dropped entry")
		}
	})
}

func TestZoneCacheLock(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newZoneCache(3)
		unlock, err := c.lock(t.Context(), cacheKey{})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), flightPatience/2)
		defer cancel()
		if _, err := c.lock(ctx, cacheKey{}); err == nil {
			t.Error("no error though the context ended")
		}
		began := time.Now()
		second, err := c.lock(t.Context(), cacheKey{})
		if err != nil || time.Since(began) != flightPatience {
			t.Errorf("waited %v, %v", time.Since(began), err)
		}
		second()
		unlock()
		if len(c.flights) != 0 {
			t.Error("a flight is left")
		}
	})
}

// A failure is found again soon, but not for every name that asks.
func TestDiscoveryFailureIsCached(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := newMemNet(t)
		delete(n.servers, "192.0.2.53:53")
		c := n.checker()
		if r := c.Look(t.Context(), target); r.Err == nil {
			t.Fatal("no error")
		}
		resolver := n.add("192.0.2.53", t, without, otherZone)
		resolver.recursive = true
		if r := c.Look(t.Context(), target); r.Err == nil {
			t.Error("the failure is not cached")
		}
		time.Sleep(failureTTL)
		if r := c.Look(t.Context(), target); r.Err != nil {
			t.Error(r.Err)
		}
		// The zone's data is kept for its TTL.
		n.mu.Lock()
		delete(n.servers, "192.0.2.53:53")
		n.mu.Unlock()
		time.Sleep(200 * time.Second)
		if r := c.Look(t.Context(), target); r.Err != nil {
			t.Error(r.Err)
		}
		time.Sleep(200 * time.Second)
		if r := c.Look(t.Context(), target); r.Err == nil {
			t.Error("the zone's data outlived its TTL")
		}
	})
}
