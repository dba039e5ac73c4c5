package acmepersist

import (
	"fmt"
	"testing"
	"time"
)

// What one registered domain may write on demand comes back within the hour, and is no other's.
func TestOnDemandWritesArePaced(t *testing.T) {
	var p writePace
	now := time.Now()
	for i := range 4 {
		if wait := p.take("a.example", 4, now); wait != 0 {
			t.Errorf("write %d waits %s", i, wait)
		}
	}
	for range 3 { // what waits takes nothing
		if wait := p.take("a.example", 4, now); wait != 15*time.Minute {
			t.Errorf("the fifth write waits %s, want a quarter of an hour", wait)
		}
	}
	if wait := p.take("b.example", 4, now); wait != 0 {
		t.Errorf("another domain waits %s", wait)
	}
	if wait := p.take("a.example", 4, now.Add(15*time.Minute)); wait != 0 {
		t.Errorf("a quarter of an hour later it waits %s", wait)
	}
	for i := range 2 * mostPaces {
		p.take(fmt.Sprintf("d%d.example", i), 4, now.Add(time.Duration(i)*time.Hour))
	}
	if n := len(p.domains); n > mostPaces {
		t.Errorf("%d domains are remembered", n)
	}
}
