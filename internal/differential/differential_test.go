package differential

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

// defaultSets is how many sets are compared in CI.
const defaultSets = 3000

var (
	setsFlag = flag.Int("differential.sets", defaultSets, "how many sets to compare")
	seedFlag = flag.Uint64("differential.seed", 0, "the seed, 0 draws one")
	onlyFlag = flag.Int64("differential.only", -1, "compare only the set of this number")
)

// maxShown bounds how many disagreements are printed.
const maxShown = 20

// TestPebble compares record.Evaluate with Pebble. A disagreement is repeated with
// -differential.seed and -differential.only.
func TestPebble(t *testing.T) {
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-differential.seed=%d -differential.sets=%d", seed, *setsFlag)
	w := newWorld(t)
	if *onlyFlag >= 0 {
		c, err := w.compare(t.Context(), generate(seed, uint64(*onlyFlag)))
		t.Log(c)
		if err != nil || !c.skipped && !c.agrees() {
			t.Errorf("disagreement, or %v", err)
		}
		return
	}

	begin := time.Now()
	sum := w.compareAll(t, seed, *setsFlag)
	elapsed := time.Since(begin)
	t.Logf("%s, %.0f sets/s\n%s", elapsed.Round(time.Millisecond), float64(*setsFlag)/elapsed.Seconds(), sum)
	if *setsFlag >= 1000 { // fewer say nothing about shares
		sum.check(t)
	}
}

// compareAll compares the sets with numbers below n.
func (w *world) compareAll(t testing.TB, seed uint64, n int) *summary {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	sum := newSummary()
	var next atomic.Int64
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for ctx.Err() == nil {
				i := next.Add(1) - 1
				if i >= int64(n) {
					return
				}
				c, err := w.compare(ctx, generate(seed, uint64(i)))
				mu.Lock()
				switch {
				case err != nil && ctx.Err() == nil:
					t.Errorf("%v\n%s", err, c)
					cancel()
				case err == nil:
					if sum.add(c); !c.skipped && !c.agrees() && sum.disagreements <= maxShown {
						t.Errorf("disagreement\n%s", c)
					}
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return sum
}

// BenchmarkPebble is the time of one set, several of them being under way.
func BenchmarkPebble(b *testing.B) {
	w := newWorld(b)
	b.ResetTimer()
	w.compareAll(b, 1, b.N)
}

// TestGenerate makes sure that a seed says it all.
func TestGenerate(t *testing.T) {
	now := time.Now()
	names := make(map[string]bool)
	for i := range uint64(2000) {
		one, two := generate(7, i), generate(7, i)
		a, b := fmt.Sprintf("%+v %q", one, one.bind("https://ca.test/1", now)), fmt.Sprintf("%+v %q", two, two.bind("https://ca.test/1", now))
		if a != b {
			t.Fatalf("set %d differs:\n%s\n%s", i, a, b)
		}
		if _, err := record.ValidationName(one.identifier()); err != nil || names[one.name] || !strings.HasSuffix(one.name, zone) {
			t.Errorf("set %d: name %q: %v", i, one.name, err)
		}
		names[one.name] = true
	}
}
