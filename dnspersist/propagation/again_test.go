package propagation

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

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
		s := NewScheduler(SchedulerConfig{Jitter: -1})
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
		s := NewScheduler(SchedulerConfig{Jitter: -1})
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
		s := NewScheduler(SchedulerConfig{Jitter: -1})
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
