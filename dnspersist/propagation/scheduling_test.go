package propagation

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestSchedulerSecondWatch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := newMemNet(t)
		s := NewScheduler(SchedulerConfig{Jitter: -1})
		defer s.Close()
		var a, b told
		stopA := s.Watch("k", n.checker(), target, nil, a.notify)
		time.Sleep(time.Hour + time.Second)
		before := n.count(time.Now(), 0)
		stopB := s.Watch("k", n.checker(), target, nil, b.notify)
		stopA()
		time.Sleep(10 * time.Second)
		if after := n.count(time.Now(), 0); watched(s) != 1 || after > before+2 {
			t.Errorf("the schedule began anew: %d more queries, %d watched", after-before, watched(s))
		}
		n.publish(t, "192.0.2.1")
		n.publish(t, "192.0.2.2")
		time.Sleep(11 * time.Minute)
		if len(a.statuses()) != 1 || len(b.statuses()) == 0 || b.last().Status != StatusReady {
			t.Errorf("told the first %q, the second %q", a.statuses(), b.statuses())
		}
		stopB()
		stopB()
		if watched(s) != 0 {
			t.Error("still watched")
		}
	})
}

func TestSchedulerObeysNegativeTTL(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := newMemNet(t)
		s := NewScheduler(SchedulerConfig{})
		defer s.Close()
		start := time.Now()
		s.Watch("k", NewChecker(Config{Mode: ModeRecursive, Resolvers: []string{"192.0.2.53"}, Exchanger: n}), target, nil, nil)
		time.Sleep(time.Minute)
		s.Poke("k")
		time.Sleep(59 * time.Second)
		if got := n.count(start, time.Hour); got != 1 {
			t.Errorf("%d questions before the negative TTL of 2 m was over", got)
		}
		time.Sleep(2 * time.Second)
		if got := n.count(start, time.Hour); got != 2 {
			t.Errorf("%d questions after it", got)
		}
	})
}

func TestSchedulerManyNames(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := newMemNet(t)
		n.latency = 50 * time.Millisecond
		s := NewScheduler(SchedulerConfig{})
		c := n.checker()
		start := time.Now()
		const names = 300
		var l told
		for i := range names {
			host := fmt.Sprintf("h%d.example.test", i)
			s.Watch(host, c, Target{Name: "_validation-persist." + host, Host: host}, nil, l.notify)
		}
		time.Sleep(2 * time.Minute)
		if got := len(l.statuses()); got != names {
			t.Errorf("%d names told of, want %d", got, names)
		}
		// the first look of each name at two servers, then 20 a second for the whole zone
		if got, most := n.count(start, time.Minute), names*2+60*20; got > most || got < most/2 {
			t.Errorf("%d queries in a minute, want %d at most, and at least half of them", got, most)
		}
		s.Close() // in the middle of it
		if watched(s) != names {
			t.Error("Close forgets watches")
		}
	})
}

func TestSchedulerPanic(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := newMemNet(t)
		s := NewScheduler(SchedulerConfig{})
		defer s.Close()
		var l told
		s.Watch("bad", n.checker(), target, nil, func(Report) { panic("no") })
		s.Watch("good", n.checker(), target, nil, l.notify)
		time.Sleep(time.Minute)
		if len(l.statuses()) != 1 {
			t.Error("the other name is not polled")
		}
		if watched(s) != 2 {
			t.Error("the name is lost")
		}
	})
}

// With real sockets and a server that does not answer.
func TestSchedulerCloseWaits(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	t.Run("", func(t *testing.T) {
		w := newWorld(t, without, without)
		w.ns1.set("silent")
		w.ns2.set("silent")
		s := NewScheduler(SchedulerConfig{})
		for _, k := range strings.Fields("a b c d e f") {
			s.Watch(k, w.checker(), target, nil, nil)
		}
		<-w.txtAsked
		began := time.Now()
		s.Close()
		if d := time.Since(began); d > testUDPTimeout {
			t.Errorf("Close took %v", d)
		}
	})
}
