package propagation

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

func TestSchedulerSecondWatch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := newMemNet(t)
		s := NewScheduler(SchedulerConfig{})
		s.jitter = 0
		defer s.Close()
		var a, b notified
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
			t.Errorf("notified the first of %q, the second of %q", a.statuses(), b.statuses())
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
		var l notified
		for i := range names {
			host := fmt.Sprintf("h%d.example.test", i)
			s.Watch(host, c, Target{Name: "_validation-persist." + host, Host: host}, nil, l.notify)
		}
		time.Sleep(2 * time.Minute)
		if got := len(l.statuses()); got != names {
			t.Errorf("%d names reported, want %d", got, names)
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
		var l notified
		core, logs := observer.New(zap.ErrorLevel)
		c := NewChecker(Config{Resolvers: []string{"192.0.2.53"}, Exchanger: n, Logger: zap.New(core)})
		s.Watch("bad", c, target, nil, func(Report) { panic("no") })
		s.Watch("good", n.checker(), target, nil, l.notify)
		time.Sleep(time.Minute)
		if len(l.statuses()) != 1 {
			t.Error("the other name is not polled")
		}
		if watched(s) != 2 {
			t.Error("the name is lost")
		}
		if logs.Len() == 0 {
			t.Error("nothing is logged")
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

// A target's function that panics at one server's values must neither end the process nor
// have the gate opened without that server.
func TestAcceptPanics(t *testing.T) {
	t.Parallel()
	for _, mode := range []Mode{ModeAuthoritative, ModeRecursive} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				n := newMemNet(t)
				odd := strings.Replace(withRecord, "acct/1", "odd", 1)
				n.publish(t, "192.0.2.1")
				n.add("192.0.2.2", t, odd)
				n.servers["192.0.2.53:53"].load(t, withRecord)
				n.add("192.0.2.54", t, odd).recursive = true
				core, logs := observer.New(zap.ErrorLevel)
				resolvers := []string{"192.0.2.53"}
				if mode == ModeRecursive {
					resolvers = append(resolvers, "192.0.2.54")
				}
				c := NewChecker(Config{Mode: mode, Resolvers: resolvers, Exchanger: n, Logger: zap.New(core)})
				panics := target
				panics.Accept = func(values []string) (bool, string) {
					if good, _ := accept(values); good {
						return true, ""
					}
					panic("odd")
				}
				s := NewScheduler(SchedulerConfig{})
				defer s.Close()
				s.Watch("k", c, panics, nil, nil)
				time.Sleep(time.Hour)
				rep := report(s, "k")
				if rep.Status != StatusPartial || !strings.Contains(rep.Reason, "internal error") {
					t.Errorf("%s", rep.Summary())
				}
				if logs.Len() == 0 {
					t.Error("nothing is logged")
				}
			})
		})
	}
}

// readyAfter is how long after now the Scheduler finds the name ready, at most limit.
func readyAfter(s *Scheduler, limit time.Duration) time.Duration {
	for began := time.Now(); time.Since(began) < limit; time.Sleep(10 * time.Second) {
		if r := report(s, "k"); r.Status == StatusReady {
			return r.When.Sub(began)
		}
	}
	return limit
}

// The server that lacks the record is taken off the delegation: there is nobody to ask again.
func TestLookAgainServerRemoved(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := newMemNet(t)
		n.publish(t, "192.0.2.1")
		s := NewScheduler(SchedulerConfig{})
		s.jitter = 0
		defer s.Close()
		s.Watch("k", n.checker(), target, nil, nil)
		time.Sleep(30 * time.Hour)
		n.servers["192.0.2.53:53"].load(t, soaRecord+"example.test. NS ns1.example.test.\nns1.example.test. A 192.0.2.1\nwww.example.test. A 192.0.2.80\n")
		if took := readyAfter(s, 100*time.Hour); took > 65*time.Minute {
			t.Errorf("ready after %v, with a poll an hour", took)
		}
	})
}

// The zone above is asked first, as one of its servers does not confirm the delegation, and
// has none of the servers that lack the record.
func TestLookAgainBehindZoneAbove(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const child = validationName + ". SOA nsd.other.test. h.other.test. 3 1 1 1 60\n" +
			validationName + ". NS nsd.other.test.\n" + validationName + ". NS nse.other.test.\n"
		const txt = validationName + `. TXT "` + wantedValue + "\"\n"
		n := newMemNet(t)
		n.servers["192.0.2.1:53"].load(t, without+validationName+". NS nsd.other.test.\n")
		delete(n.servers, "192.0.2.2:53")
		n.add("192.0.2.21", t, child+txt)
		stale := n.add("192.0.2.22", t, child)
		n.servers["192.0.2.53:53"].load(t, otherZone+"nsd.other.test. A 192.0.2.21\nnse.other.test. A 192.0.2.22\n")
		s := NewScheduler(SchedulerConfig{})
		s.jitter = 0
		defer s.Close()
		s.Watch("k", n.checker(), target, nil, nil)
		time.Sleep(10 * time.Hour)
		stale.load(t, child+txt)
		if took := readyAfter(s, time.Hour); took > 6*time.Minute {
			t.Errorf("ready after %v, with a poll every five minutes", took)
		}
	})
}

// A Poke that comes while those that lack the record are asked has all asked.
func TestPokeWhileLookingAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := &hookNet{memNet: newMemNet(t)}
		n.publish(t, "192.0.2.1")
		s := NewScheduler(SchedulerConfig{})
		s.jitter = 0
		defer s.Close()
		alone, since := 0, 0
		n.hook = func(_, addr string, q *dns.Msg) (*dns.Msg, error, bool) {
			n.mu.Lock()
			defer n.mu.Unlock()
			if q.Question[0].Qtype != dns.TypeTXT || addr != "192.0.2.2:53" {
				return nil, nil, false
			}
			if alone++; alone == 4 {
				since = len(n.addrs) + 1
				s.Poke("k")
			}
			return nil, nil, false
		}
		s.Watch("k", n.checker(), target, nil, nil)
		time.Sleep(8 * time.Second)
		n.mu.Lock()
		next := slices.Clone(n.addrs[since : since+2])
		n.mu.Unlock()
		slices.Sort(next)
		if !slices.Equal(next, []string{"192.0.2.1:53", "192.0.2.2:53"}) {
			t.Errorf("asked after Poke: %q, want all", next)
		}
	})
}
