package propagation

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

// memNet answers without sockets, for tests on a fake clock.
type memNet struct {
	mu      sync.Mutex
	servers map[string]*testServer // by "ip:53"
	times   []time.Time            // of TXT questions
	addrs   []string               // that were asked them
	latency time.Duration
}

func newMemNet(t *testing.T) *memNet {
	n := &memNet{servers: make(map[string]*testServer)}
	n.add("192.0.2.53", t, without, otherZone).recursive = true
	n.add("192.0.2.1", t, without)
	n.add("192.0.2.2", t, without)
	return n
}

func (n *memNet) add(ip string, t *testing.T, zones ...string) *testServer {
	s := &testServer{zones: make(map[string][]dns.RR)}
	for _, z := range zones {
		s.load(t, z)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.servers[ip+":53"] = s
	return s
}

func (n *memNet) Exchange(ctx context.Context, network, addr string, query *dns.Msg) (*dns.Msg, error) {
	q := query.Question[0]
	n.mu.Lock()
	s, latency := n.servers[addr], n.latency
	if q.Qtype == dns.TypeTXT {
		n.times, n.addrs = append(n.times, time.Now()), append(n.addrs, addr)
	}
	n.mu.Unlock()
	if latency > 0 {
		select {
		case <-time.After(latency):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if s == nil {
		return nil, errors.New("network is unreachable")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	m := new(dns.Msg)
	m.SetReply(query)
	s.answer(m, q)
	return m, nil
}

// publish gives the record to the server at ip.
func (n *memNet) publish(t *testing.T, ip string) {
	n.mu.Lock()
	s := n.servers[ip+":53"]
	n.mu.Unlock()
	s.load(t, withRecord)
}

func (n *memNet) checker() *Checker {
	return NewChecker(Config{Resolvers: []string{"192.0.2.53"}, Exchanger: n})
}

// count returns the TXT questions until d after start.
func (n *memNet) count(start time.Time, d time.Duration) (c int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, at := range n.times {
		if at.Sub(start) <= d {
			c++
		}
	}
	return c
}

// watched is how many names s polls.
func watched(s *Scheduler) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.watches)
}

// report is the last one on a name that s polls.
func report(s *Scheduler, key string) Report {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.watches[key].gate.Report()
}

// notified collects what notify gets.
type notified struct {
	mu   sync.Mutex
	reps []Report
}

func (l *notified) notify(r Report) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reps = append(l.reps, r)
}

func (l *notified) statuses() (all []Status) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.reps {
		all = append(all, r.Status)
	}
	return all
}

func (l *notified) last() Report {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.reps[len(l.reps)-1]
}

func TestInterval(t *testing.T) {
	t.Parallel()
	cfg := SchedulerConfig{}.withDefaults()
	for elapsed, want := range map[time.Duration]time.Duration{
		0: 1100 * time.Millisecond, 5 * time.Second: 1100 * time.Millisecond, time.Minute: 6 * time.Second, 10 * time.Minute: time.Minute,
		time.Hour: 5 * time.Minute, 23 * time.Hour: 5 * time.Minute, 24 * time.Hour: time.Hour,
		6 * 24 * time.Hour: time.Hour, 7 * 24 * time.Hour: 24 * time.Hour, 1000 * time.Hour: 24 * time.Hour,
	} {
		if got := cfg.interval(elapsed); got != want {
			t.Errorf("interval after %v: %v, want %v", elapsed, got, want)
		}
	}
}

// What a name costs that nobody publishes: polls, and TXT queries with the
// full looks at two servers among them.
func TestSchedulerDecays(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := newMemNet(t)
		s := NewScheduler(SchedulerConfig{})
		s.jitter = 0
		defer s.Close()
		start := time.Now()
		stop := s.Watch("k", n.checker(), target, nil, nil)
		time.Sleep(15 * 24 * time.Hour)
		for _, tt := range []struct {
			until    time.Duration
			min, max int
		}{
			{time.Minute, 26, 29},
			{10 * time.Minute, 50, 53},
			{time.Hour, 69, 72},
			{24 * time.Hour, 340, 350},
			{48 * time.Hour, 363, 380},
			{7 * 24 * time.Hour, 480, 500},
			{14*24*time.Hour + time.Hour, 487, 508},
		} {
			if got := n.count(start, tt.until); got < tt.min || got > tt.max {
				t.Errorf("%d queries in %v, want %d to %d", got, tt.until, tt.min, tt.max)
			} else {
				t.Logf("%d queries in %v", got, tt.until)
			}
		}
		n.mu.Lock()
		first := slices.Clone(n.addrs[:8])
		n.mu.Unlock()
		slices.Sort(first[:2])
		want := []string{"192.0.2.1:53", "192.0.2.2:53", "192.0.2.2:53", "192.0.2.1:53", "192.0.2.2:53", "192.0.2.1:53", "192.0.2.2:53", "192.0.2.1:53"}
		if !slices.Equal(first, want) {
			t.Errorf("asked %q, want all, then one after another: %q", first, want)
		}
		stop()
		if watched(s) != 0 {
			t.Error("still watched")
		}
		before := n.count(start, 1e6*time.Hour)
		time.Sleep(30 * 24 * time.Hour)
		if after := n.count(start, 1e6*time.Hour); after != before {
			t.Error("polled after stop")
		}
	})
}

func TestSchedulerAppears(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := newMemNet(t)
		s := NewScheduler(SchedulerConfig{})
		defer s.Close()
		var l notified
		start := time.Now()
		s.Watch("k", n.checker(), target, nil, l.notify)
		time.Sleep(time.Hour)
		n.publish(t, "192.0.2.2")
		time.Sleep(13 * time.Minute)
		if got := l.statuses(); !slices.Equal(got, []Status{StatusAbsent, StatusPartial}) {
			t.Fatalf("notified of %q", got)
		}
		// Only one of two servers has it: seen at the latest at the second
		// poll, and the interval began again at a second.
		rep := l.last()
		if d := rep.FirstYes.Sub(start.Add(time.Hour)); d < 0 || d > 12*time.Minute {
			t.Errorf("first yes %v after publication", d)
		}
		before := n.count(start, 1e6*time.Hour)
		s.Poke("k")
		time.Sleep(10 * time.Second)
		// all servers at once, then the one that lacks it
		if asked := n.count(start, 1e6*time.Hour) - before; asked < 9 || asked > 13 {
			t.Errorf("%d questions in ten seconds after Poke", asked)
		}
		n.publish(t, "192.0.2.1")
		published := time.Now()
		time.Sleep(3 * time.Minute)
		got := l.statuses()
		if len(got) < 5 || !slices.Equal(got[:4], []Status{StatusAbsent, StatusPartial, StatusConfirming, StatusReady}) || got[len(got)-1] != StatusReady {
			t.Fatalf("notified of %q, want confirming, ready and ready again", got)
		}
		l.mu.Lock()
		ready := l.reps[3].When.Sub(published)
		l.mu.Unlock()
		if ready < DefaultSettle || ready > DefaultSettle+4*time.Second {
			t.Errorf("ready %v after publication", ready)
		}
		if rep := report(s, "k"); rep.Status != StatusReady {
			t.Errorf("report %+v", rep)
		}
	})
}
