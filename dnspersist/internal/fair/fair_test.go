package fair

import (
	"slices"
	"testing"
	"time"
)

func TestPace(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	const second = time.Second
	for _, tt := range []struct {
		name  string
		burst time.Duration
		holds []time.Duration // one after another, all at the start
		want  []time.Duration
	}{
		{"no burst", 0, []time.Duration{second, second, second}, []time.Duration{0, second, 2 * second}},
		{"burst", 2 * second, []time.Duration{second, second, second, second}, []time.Duration{0, 0, 0, second}},
		{"one that takes long", second, []time.Duration{10 * second, second}, []time.Duration{0, 9 * second}},
		{"nothing", 0, []time.Duration{0, 0}, []time.Duration{0, 0}},
	} {
		p := Pace[string]{Burst: tt.burst}
		for i, hold := range tt.holds {
			if got := p.Reserve("a", start, hold).Sub(start); got != tt.want[i] {
				t.Errorf("%s: place %d comes after %v, want %v", tt.name, i, got, tt.want[i])
			}
		}
		if got := p.Next("b", start); !got.Equal(start) {
			t.Errorf("%s: another key waits until %v", tt.name, got)
		}
	}
}

func TestPaceIsMadeUpFor(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var p Pace[int]
	p.Reserve(1, start, 10*time.Second)
	p.Hold(1, start, -4*time.Second)
	if got := p.Next(1, start).Sub(start); got != 6*time.Second {
		t.Errorf("next after %v, want 6 s", got)
	}
	p.Hold(1, start, -time.Hour)
	if got := p.Next(1, start); !got.Equal(start) || len(p.free) != 0 {
		t.Errorf("next %v, %d keys: what was given back is saved", got, len(p.free))
	}
	if got := p.Reserve(1, start.Add(time.Hour), time.Second); !got.Equal(start.Add(time.Hour)) {
		t.Errorf("next %v after a long rest", got)
	}
}

// Keys are forgotten, however many there were.
func TestPaceForgets(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	p := Pace[int]{Burst: time.Second}
	for i := range 100_000 {
		p.Reserve(i, now, 50*time.Millisecond)
		now = now.Add(time.Millisecond)
	}
	if len(p.free) > 2*minSweep {
		t.Errorf("%d keys are remembered", len(p.free))
	}
}

func all(string) bool { return true }

func TestQueue(t *testing.T) {
	t.Parallel()
	var q Queue[string, int]
	for i := range 5 {
		q.Push("dear", 100+i)
		q.Push("cheap", i)
	}
	cost := map[bool]float64{true: 150, false: 1}
	var got []int
	for {
		i, ok := q.Pop(all)
		if !ok {
			break
		}
		got = append(got, i)
		if i >= 100 {
			q.Charge("dear", cost[true])
		} else {
			q.Charge("cheap", cost[false])
		}
	}
	if want := []int{100, 0, 1, 2, 3, 4, 101, 102, 103, 104}; !slices.Equal(got, want) {
		t.Errorf("served %v, want %v", got, want)
	}
	if q.Len() != 0 {
		t.Errorf("%d are left", q.Len())
	}
}

// Whoever comes after a rest is served next, and has saved nothing.
func TestQueueAfterRest(t *testing.T) {
	t.Parallel()
	var q Queue[string, string]
	for range 100 {
		q.Push("busy", "busy")
	}
	for range 50 {
		q.Pop(all)
		q.Charge("busy", 1)
	}
	for range 10 {
		q.Push("rested", "rested")
	}
	var rested, busy int
	for i := range 20 {
		key, _ := q.Pop(all)
		q.Charge(key, 1)
		if key == "rested" {
			rested++
		} else {
			busy++
		}
		if i == 1 && rested == 0 {
			t.Error("not served soon")
		}
	}
	if rested != 10 || busy != 10 {
		t.Errorf("served %d and %d times of 20", rested, busy)
	}
}

func TestQueueMay(t *testing.T) {
	t.Parallel()
	var q Queue[int, string]
	q.Push(1, "first")
	q.Push(2, "second")
	if got, ok := q.Pop(func(k int) bool { return k == 2 }); !ok || got != "second" {
		t.Errorf("got %q", got)
	}
	if got, ok := q.Pop(func(k int) bool { return k == 2 }); ok {
		t.Errorf("got %q, which may not be served", got)
	}
	if got, ok := q.Pop(func(int) bool { return true }); !ok || got != "first" {
		t.Errorf("got %q", got)
	}
}

// Among keys that always wait each gets the same share, whatever one of its items uses.
func TestQueueShares(t *testing.T) {
	t.Parallel()
	costs := map[int]float64{0: 1, 1: 2, 3: 7, 7: 150}
	var q Queue[int, int]
	for k := range costs {
		for range 100_000 {
			q.Push(k, k)
		}
	}
	used := make(map[int]float64)
	for range 50_000 {
		k, _ := q.Pop(func(int) bool { return true })
		q.Charge(k, costs[k])
		used[k] += costs[k]
	}
	for k, u := range used {
		if d := u - used[0]; d > 150 || d < -150 {
			t.Errorf("key %d has used %v, key 0 %v", k, u, used[0])
		}
	}
}
