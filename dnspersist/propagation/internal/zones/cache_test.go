package zones

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
