package propagation

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

// askedSince are the questions from when the log was last emptied, to resolvers and, at the name, to its servers.
func (n *hookNet) askedSince() (resolvers int, servers []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, l := range n.log {
		f := strings.Fields(l)
		switch {
		case f[1] == "192.0.2.53:53":
			resolvers++
		case f[3] == "TXT":
			servers = append(servers, f[1])
		}
	}
	n.log = nil
	return resolvers, servers
}

// watchAbsent polls a name without a record until d after the begin.
func watchAbsent(t *testing.T, d time.Duration, then func(n *hookNet, s *Scheduler, l *notified)) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := &hookNet{memNet: newMemNet(t)}
		s := NewScheduler(SchedulerConfig{})
		s.jitter = 0
		defer s.Close()
		var l notified
		s.Watch("k", n.checker(), target, nil, l.notify)
		time.Sleep(d)
		n.askedSince()
		then(n, s, &l)
	})
}

// The zone's records have a TTL of five minutes. A poll after that costs one question still, each
// time to another server, and nobody is notified of it.
func TestAbsentPollCostsOneQuestion(t *testing.T) {
	watchAbsent(t, 6*time.Minute, func(n *hookNet, s *Scheduler, l *notified) {
		before := report(s, "k").When
		time.Sleep(12 * time.Minute)
		n.mu.Lock()
		all := len(n.log)
		n.mu.Unlock()
		resolvers, servers := n.askedSince()
		if all != len(servers) || resolvers > 0 || len(servers) < 8 || len(servers) > 13 {
			t.Errorf("asked %q and resolvers %d times, %d questions in all", servers, resolvers, all)
		}
		for i := range servers[1:] {
			if servers[i] == servers[i+1] {
				t.Errorf("asked %q, want one after another", servers)
				break
			}
		}
		if got := l.statuses(); !slices.Equal(got, []Status{StatusAbsent}) {
			t.Errorf("notified of %q", got)
		}
		if r := report(s, "k"); r.Status != StatusAbsent || r.When.Sub(before) < 9*time.Minute {
			t.Errorf("report %s of %v, before that of %v", r.Summary(), r.When, before)
		}
	})
}

// A new serial is in the report, and costs nothing more.
func TestAbsentPollShowsNewSerial(t *testing.T) {
	watchAbsent(t, 6*time.Minute, func(n *hookNet, s *Scheduler, _ *notified) {
		for _, ip := range []string{"192.0.2.1", "192.0.2.2"} {
			n.servers[ip+":53"].load(t, strings.Replace(without, " 7 ", " 8 ", 1))
		}
		time.Sleep(6 * time.Minute)
		if resolvers, _ := n.askedSince(); resolvers > 0 {
			t.Errorf("asked resolvers %d times", resolvers)
		}
		for _, server := range report(s, "k").Servers {
			if server.Serial != 8 {
				t.Errorf("%+v", server)
			}
		}
	})
}

// When the record appears at one server, the zone is found anew and all of its servers are asked.
func TestFoundAnewWhenRecordAppears(t *testing.T) {
	watchAbsent(t, 10*time.Minute, func(n *hookNet, s *Scheduler, _ *notified) {
		n.publish(t, "192.0.2.1")
		n.publish(t, "192.0.2.2")
		// the zone has moved meanwhile, which nobody could see
		n.add("192.0.2.3", t, withRecord)
		n.servers["192.0.2.53:53"].load(t, strings.ReplaceAll(otherZone, "192.0.2.2", "192.0.2.3"))
		time.Sleep(3 * time.Minute)
		resolvers, servers := n.askedSince()
		if resolvers == 0 || !slices.Contains(servers, "192.0.2.1:53") || !slices.Contains(servers, "192.0.2.3:53") {
			t.Errorf("asked resolvers %d times, and %q", resolvers, servers)
		}
		if r := report(s, "k"); r.Status != StatusReady {
			t.Errorf("%s", r.Summary())
		}
	})
}

// A server that is not responsible any more has the zone found anew, at once, and once: not each time that it
// changes its mind.
func TestFoundAnewWhenServerChangesItsMind(t *testing.T) {
	watchAbsent(t, 10*time.Minute, func(n *hookNet, s *Scheduler, _ *notified) {
		var refuses bool
		n.hook = func(_, addr string, q *dns.Msg) (*dns.Msg, error, bool) {
			n.mu.Lock()
			defer n.mu.Unlock()
			if !refuses || addr != "192.0.2.2:53" {
				return nil, nil, false
			}
			return new(dns.Msg).SetRcode(q, dns.RcodeRefused), nil, true
		}
		n.mu.Lock()
		refuses = true
		n.mu.Unlock()
		time.Sleep(4 * time.Minute)
		resolvers, servers := n.askedSince()
		if resolvers == 0 || resolvers > 10 {
			t.Errorf("asked resolvers %d times", resolvers)
		}
		asked := 0
		for _, addr := range servers {
			if addr == "192.0.2.2:53" {
				asked++
			}
		}
		if asked != 2 { // the poll, and the look at all
			t.Errorf("asked the server that refuses %d times: %q", asked, servers)
		}
		if r := report(s, "k"); r.Status != StatusAbsent {
			t.Errorf("%s", r.Summary())
		}
	})
}

// Once in half an hour the zone is found anew whatever its servers answer: where it has moved, the new ones are asked.
func TestFoundAnewEveryHalfHour(t *testing.T) {
	watchAbsent(t, 20*time.Minute, func(n *hookNet, s *Scheduler, _ *notified) {
		time.Sleep(11 * time.Minute)
		if resolvers, _ := n.askedSince(); resolvers == 0 || resolvers > 10 {
			t.Errorf("asked resolvers %d times in the first half hour, want one way to the zone", resolvers)
		}
		for _, ip := range []string{"192.0.2.3", "192.0.2.4"} {
			n.add(ip, t, withRecord)
		}
		n.servers["192.0.2.53:53"].load(t, strings.ReplaceAll(without, "192.0.2.1", "192.0.2.3"))
		n.servers["192.0.2.53:53"].load(t, strings.ReplaceAll(otherZone, "192.0.2.2", "192.0.2.4"))
		time.Sleep(32 * time.Minute)
		if r := report(s, "k"); r.Status != StatusReady {
			t.Errorf("%s", r.Summary())
		}
	})
}

// Another configuration may find another zone: that is not waited for.
func TestFoundAnewWithOtherResolvers(t *testing.T) {
	watchAbsent(t, 10*time.Minute, func(n *hookNet, s *Scheduler, _ *notified) {
		s.Watch("k", n.checker(), target, nil, nil)
		time.Sleep(2 * time.Minute)
		if resolvers, _ := n.askedSince(); resolvers > 0 {
			t.Errorf("asked resolvers %d times after a reload that changes nothing", resolvers)
		}
		n.add("192.0.2.3", t, withRecord)
		n.add("192.0.2.54", t, strings.ReplaceAll(without, "192.0.2.1", "192.0.2.3"), strings.ReplaceAll(otherZone, "192.0.2.2", "192.0.2.3")).recursive = true
		s.Watch("k", NewChecker(Config{Resolvers: []string{"192.0.2.54"}, Exchanger: n}), target, nil, nil)
		time.Sleep(4 * time.Minute)
		if r := report(s, "k"); r.Status != StatusReady {
			t.Errorf("%s", r.Summary())
		}
	})
}

// Names of one zone share what one of them has found.
func TestNamesOfOneZoneShareWhatIsFoundAnew(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := &hookNet{memNet: newMemNet(t)}
		s := NewScheduler(SchedulerConfig{})
		defer s.Close()
		c := n.checker()
		const names = 50
		for i := range names {
			h := fmt.Sprintf("h%d.example.test", i)
			s.Watch(h, c, Target{Name: "_validation-persist." + h, Host: h, Accept: accept}, nil, nil)
		}
		time.Sleep(15 * time.Minute)
		n.askedSince()
		time.Sleep(30 * time.Minute)
		if resolvers, _ := n.askedSince(); resolvers == 0 || resolvers > 5*10 {
			t.Errorf("asked resolvers %d times for %d names in half an hour", resolvers, names)
		}
	})
}

func TestIsOutdated(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for _, tt := range []struct {
		what      string
		ago, late time.Duration
		never     bool
		want      bool
	}{
		{what: "never found", never: true, late: time.Hour, want: true},
		{what: "just found"},
		{what: "before its time", ago: anewAfter * 8 / 10},
		{what: "after it", ago: anewAfter, want: true},
		{what: "while polls are late", ago: anewAfter, late: 5 * time.Minute},
		{what: "after as many late polls", ago: anewAfter + anewPolls*5*time.Minute, late: 5 * time.Minute, want: true},
	} {
		for offset := range 20 {
			w := &watch{found: now.Add(-tt.ago), due: now.Add(-tt.late), offset: offset}
			if tt.never {
				w.found = time.Time{}
			}
			if got := w.isOutdated(now); got != tt.want {
				t.Errorf("%s, name %d: %t", tt.what, offset, got)
			}
		}
	}
}

// countingNet counts the questions for each name, and the longest time between two.
type countingNet struct {
	crowdNet
	mu   sync.Mutex
	asks map[string]int
	last map[string]time.Time
	gap  time.Duration
}

func (n *countingNet) Exchange(ctx context.Context, network, addr string, query *dns.Msg) (*dns.Msg, error) {
	if q := query.Question[0]; q.Qtype == dns.TypeTXT {
		n.mu.Lock()
		now := time.Now()
		if last, ok := n.last[q.Name]; ok {
			n.gap = max(n.gap, now.Sub(last))
		}
		n.asks[q.Name]++
		n.last[q.Name] = now
		n.mu.Unlock()
	}
	return n.crowdNet.Exchange(ctx, network, addr, query)
}

// Where more names wait than may be asked for, all are late by as much, and none is forgotten.
func TestOverloadIsEven(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := &countingNet{crowdNet: crowdNet{kind: "quick", where: "own domains"}, asks: make(map[string]int), last: make(map[string]time.Time)}
		s := NewScheduler(SchedulerConfig{})
		defer s.Close()
		c := NewChecker(Config{Resolvers: []string{"192.0.2.53"}, Exchanger: n})
		const names = 2000
		var wg sync.WaitGroup
		for i := range names {
			wg.Go(func() {
				host := n.badHost(i)
				target := Target{Name: "_validation-persist." + host, Host: host, Accept: accept}
				g := c.NewGate()
				c.Check(t.Context(), target, g)
				s.Watch(host, c, target, g, nil)
			})
		}
		wg.Wait()
		// All together want 1,800 questions a second at first, and after 50 s as many as they may.
		before := make(map[string]int)
		for _, span := range []time.Duration{40 * time.Second, 10 * time.Minute} {
			n.mu.Lock()
			clear(before)
			for name, asks := range n.asks {
				before[name] = asks
			}
			n.gap = 0
			n.mu.Unlock()
			time.Sleep(span)
			n.mu.Lock()
			least, most := names, 0
			for name, asks := range n.asks {
				least, most = min(least, asks-before[name]), max(most, asks-before[name])
			}
			t.Logf("%d to %d polls of a name in %v, %v apart at most", least, most, span, n.gap)
			if len(n.asks) != names || least < most*2/3 || least == 0 {
				t.Errorf("%d to %d polls of each of %d names in %v", least, most, len(n.asks), span)
			}
			if n.gap > span/4 {
				t.Errorf("a name was not asked for in %v", n.gap)
			}
			n.mu.Unlock()
		}
	})
}
