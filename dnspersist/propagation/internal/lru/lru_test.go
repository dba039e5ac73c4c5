package lru

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestCacheIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := New[int, string](3)
		for i := range 5 {
			c.Put(i, "value", 1, time.Now().Add(time.Duration(i+1)*time.Minute))
			c.Get(0) // in use
		}
		for i, want := range []bool{true, false, false, true, true} {
			if value, ok := c.Get(i); ok != want || ok && value != "value" {
				t.Errorf("entry %d: %q, %v, want %v", i, value, ok, want)
			}
		}
		time.Sleep(time.Minute)
		if _, ok := c.Get(0); ok {
			t.Error("an expired entry")
		}
		c.Drop(3)
		if _, ok := c.Get(3); ok || len(c.entries) != 1 || c.order.Len() != 1 || c.weight != 1 {
			t.Error("a dropped entry")
		}
	})
}

func TestHeavyEntriesPushOthersOut(t *testing.T) {
	t.Parallel()
	c := New[string, int](10)
	later := time.Now().Add(time.Hour)
	c.Put("a", 1, 4, later)
	c.Put("b", 2, 4, later)
	c.Put("a", 3, 6, later) // in place of the first
	if a, ok := c.Get("a"); !ok || a != 3 || c.weight != 10 {
		t.Errorf("a is %d, %v, the weight %d", a, ok, c.weight)
	}
	c.Put("c", 4, 7, later)
	if _, ok := c.Get("c"); !ok || len(c.entries) != 1 {
		t.Errorf("%d entries", len(c.entries))
	}
	c.Put("d", 5, 11, later)
	if len(c.entries) != 0 || c.weight != 0 {
		t.Errorf("%d entries of the weight %d, for one that is too heavy", len(c.entries), c.weight)
	}
}

func TestLock(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := New[int, string](3)
		unlock, err := c.Lock(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), flightPatience/2)
		defer cancel()
		if _, err := c.Lock(ctx, 0); err == nil {
			t.Error("no error though the context ended")
		}
		began := time.Now()
		second, err := c.Lock(t.Context(), 0)
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
