package ca

import (
	"container/heap"
	"math/rand/v2"
	"testing"
	"time"
)

// simulated is a CA on a clock of its own, at which there is always another order. An order is a few requests, one after
// another.
type simulated struct {
	// servers work on one request at a time each, and take so long for it at a time of the simulation, with so many
	// requests at the CA. They fail if it is negative.
	servers int
	service func(at time.Duration, here int) time.Duration
	// network is how long a request is on its way beside that.
	network func(r *rand.Rand) time.Duration
}

type simulatedAnswer struct {
	at, sent time.Duration
	failed   bool
}

type answersByTime []simulatedAnswer

func (a answersByTime) Len() int           { return len(a) }
func (a answersByTime) Less(i, j int) bool { return a[i].at < a[j].at }
func (a answersByTime) Swap(i, j int)      { a[i], a[j] = a[j], a[i] }
func (a *answersByTime) Push(x any)        { *a = append(*a, x.(simulatedAnswer)) }
func (a *answersByTime) Pop() any {
	old := *a
	x := old[len(old)-1]
	*a = old[:len(old)-1]
	return x
}

// run has as many orders as the width allows under way, and returns the width and the requests answered well in each second.
func (s simulated) run(lasts time.Duration, fixed int) (widths, answers []int) {
	r := rand.New(rand.NewPCG(1, 2))
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	w := newWidth()
	busy := make([]time.Duration, s.servers)
	var pending answersByTime
	send := func(now time.Duration) {
		free := 0
		for i := range busy {
			if busy[i] < busy[free] {
				free = i
			}
		}
		service := s.service(now, len(pending))
		failed := service < 0
		if failed {
			service = time.Millisecond
		}
		there := now
		if s.network != nil {
			there += s.network(r)
		}
		busy[free] = max(busy[free], there) + service
		w.asked(start.Add(now))
		heap.Push(&pending, simulatedAnswer{at: busy[free], sent: now, failed: failed})
	}
	for now := time.Duration(0); now < lasts; {
		width := w.limit(DefaultMostLanes)
		if fixed > 0 {
			width = fixed
		}
		for len(pending) < width {
			send(now)
		}
		w.short = true
		a := heap.Pop(&pending).(simulatedAnswer)
		now = a.at
		outcome := requestAnswered
		if a.failed {
			outcome = requestFailed
		}
		for second := int(now / time.Second); len(answers) <= second; {
			answers, widths = append(answers, 0), append(widths, 0)
		}
		if !a.failed {
			answers[int(now/time.Second)]++
		}
		w.answered("step", start.Add(a.sent), start.Add(now), outcome)
		widths[int(now/time.Second)] = w.limit(DefaultMostLanes)
	}
	return widths, answers
}

func sum(list []int) (n int) {
	for _, v := range list {
		n += v
	}
	return n
}

// The width is found at CAs of all kinds: as much comes of it as of the width that is best there.
func TestWidth(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	steady := func(d time.Duration) func(time.Duration, int) time.Duration {
		return func(time.Duration, int) time.Duration { return d }
	}
	jitter := func(r *rand.Rand) time.Duration { return time.Duration(r.ExpFloat64() * float64(15*ms)) }
	for _, row := range []struct {
		name string
		ca   simulated
		// from and to bound the width in the second half, part is what has to come of it at least, of what comes of best
		from, to, best int
		part           float64
		lasts          time.Duration
	}{
		{"one request at a time", simulated{1, steady(2 * ms), nil}, 4, 16, 8, 0.95, 30 * time.Second},
		{"one request at a time, slowly", simulated{1, steady(30 * ms), nil}, 4, 16, 8, 0.95, 30 * time.Second},
		{"one at a time, on a busy machine", simulated{1, steady(5 * ms), jitter}, 4, 24, 12, 0.85, 30 * time.Second},
		{"sixteen servers", simulated{16, steady(100 * ms), nil}, 16, 30, 20, 0.85, time.Minute},
		{"any parallelism, far away", simulated{1000, steady(200 * ms), nil}, 64, 64, 64, 0.85, time.Minute},
		{"one that collapses", simulated{8, func(_ time.Duration, here int) time.Duration {
			if here > 24 {
				return time.Duration(here) * 20 * ms
			}
			return 40 * ms
		}, nil}, 8, 22, 12, 0.85, time.Minute},
		{"saturated for long: the best is not forgotten", simulated{1, steady(20 * ms), nil}, 4, 24, 8, 0.95, 20 * time.Minute},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			widths, answers := row.ca.run(row.lasts, 0)
			_, best := row.ca.run(row.lasts, row.best)
			if got, want := sum(answers), row.part*float64(sum(best)); float64(got) < want {
				t.Errorf("%d answers, want %.0f: widths %v", got, want, widths)
			}
			for _, w := range widths[len(widths)/2:] {
				// a probe halves it for a moment
				if w < min(row.from, max(row.from/2, leastWidth)) || w > row.to {
					t.Errorf("the width is %d, want %d to %d: %v", w, row.from, row.to, widths)
					break
				}
			}
		})
	}
}

// A CA that gets slow for a minute, or fails, has fewer lanes, and as many as before soon afterwards.
func TestWidthRecovers(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	for name, trouble := range map[string]time.Duration{"slow": 500 * ms, "down": -1} {
		ca := simulated{16, func(at time.Duration, _ int) time.Duration {
			if at > time.Minute && at < 2*time.Minute {
				return trouble
			}
			return 50 * ms
		}, nil}
		widths, answers := ca.run(3*time.Minute, 0)
		if least := widths[110]; least > 13 {
			t.Errorf("%s: there are %d lanes in the trouble", name, least)
		}
		if before, after := sum(answers[40:60]), sum(answers[150:170]); float64(after) < 0.9*float64(before) {
			t.Errorf("%s: %d answers before and %d after it: widths %v", name, before, after, widths)
		}
	}
}
