package propagation

import (
	"context"
	"math/bits"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation/internal/ask"
)

// A record that comes and goes gets the fast pace ten times an hour.
func TestFlappingNameLosesTheFastPace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := &hookNet{memNet: newMemNet(t)}
		var has atomic.Bool
		n.hook = func(_, addr string, q *dns.Msg) (*dns.Msg, error, bool) {
			if !has.Load() || q.Question[0].Qtype != dns.TypeTXT || addr == "192.0.2.53:53" {
				return nil, nil, false
			}
			m := new(dns.Msg).SetReply(q)
			m.Authoritative = true
			m.Answer = rrs(q.Question[0].Name + ` 60 TXT "` + wantedValue + `"`)
			return m, nil, true
		}
		s := NewScheduler(SchedulerConfig{})
		defer s.Close()
		start := time.Now()
		s.Watch("k", n.checker(), target, nil, func(r Report) { has.Store(r.FirstYes.IsZero()) })
		for range 5 * 60 {
			time.Sleep(time.Minute)
			has.Store(!has.Load())
		}
		day := n.count(start, 5*time.Hour)
		t.Logf("%d questions in five hours", day)
		// ten times an hour the 70 questions of a first hour at most, and half of that
		if day > 5*500 {
			t.Errorf("%d questions in five hours", day)
		}
	})
}

func TestEvents(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	w := &watch{}
	for i := range 25 {
		w.event(now)
		if counts := w.lastEvent.Equal(now); counts != (i < 10 || i >= 20) {
			t.Errorf("event %d counts: %v", i, counts)
		}
		if now = now.Add(time.Minute); i == 19 {
			now = now.Add(time.Hour)
		}
	}
}

func TestClassOf(t *testing.T) {
	t.Parallel()
	usage := func(servers, resolvers, octets int64, waited time.Duration) ask.Usage {
		return ask.Usage{Servers: servers, Resolvers: resolvers, Octets: octets, Waited: waited}
	}
	for _, tt := range []struct {
		name  string
		taken ask.Usage
		asked int
		want  class
	}{
		{"nothing", usage(0, 0, 0, 0), 0, 0},
		{"one server", usage(1, 0, 0, 0), 1, 0},
		{"one far away", usage(1, 0, 0, 200*time.Millisecond), 1, 0},
		{"an alias", usage(2, 0, 0, 40*time.Millisecond), 1, 1},
		{"all of 13 servers, and of 4 behind an alias", usage(34, 0, 0, 200*time.Millisecond), 13, 1},
		{"the same, and the zones are not known", usage(39, 47, 0, 400*time.Millisecond), 13, 2},
		{"a record that takes TCP", usage(2, 0, 3000, 50*time.Millisecond), 1, 1},
		{"a server known to be silent", usage(1, 0, 0, time.Second), 1, 4},
		{"a silent server", usage(3, 0, 0, 7*time.Second), 1, 4},
		{"60 KB", usage(2, 0, 60_000, 50*time.Millisecond), 1, 4},
		{"all that one may ask", usage(30, 120, 0, time.Second), 1, 5},
		{"for half a minute", usage(150, 0, 0, 30*time.Second), 1, lastClass},
	} {
		if got := classOf(costOf(tt.taken, tt.asked)); got != tt.want {
			t.Errorf("%s: class %d (cost %.1f), want %d", tt.name, got, costOf(tt.taken, tt.asked), tt.want)
		}
	}
	for c := range lastClass {
		if least := float64(uint(1) << c); classOf(least) != c || classOf(2*least-0.01) != c {
			t.Errorf("class %d is not that of costs from %v to %v", c, least, 2*least)
		}
	}
	if bits.Len(dearCost) != int(firstDear)+1 {
		t.Error("dearCost is not the least of the first dear class")
	}
}

// Polls that were cheap until now and turn dear all at once hold the workers for a second, not
// for as long as they like; what they were about to say does not count.
func TestPollsThatTurnDearEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := &turningNet{crowdNet: &crowdNet{kind: "quick", where: "own domains"}}
		s := NewScheduler(SchedulerConfig{MaxInterval: 5 * time.Second})
		defer s.Close()
		c := NewChecker(Config{Resolvers: []string{"192.0.2.53"}, Exchanger: n})
		watch := func(host string, notify func(Report)) {
			target := Target{Name: "_validation-persist." + host, Host: host, Accept: accept}
			g := c.NewGate()
			c.Check(t.Context(), target, g)
			s.Watch(host, c, target, g, notify)
		}
		for i := range 200 {
			watch(n.badHost(i), func(r Report) {
				if r.Status == StatusBlocked && r.Problem == CodeNotAsked {
					t.Errorf("a poll that was ended counts: %s", r.Summary())
				}
			})
		}
		ready := make(chan struct{})
		watch("h1.good1.test", func(r Report) {
			if r.Status == StatusReady {
				select {
				case <-ready:
				default:
					close(ready)
				}
			}
		})
		time.Sleep(5 * time.Minute)
		n.turned.Store(true)
		time.Sleep(2 * time.Second)
		n.published.Store(true)
		began := time.Now()
		<-ready
		if took := time.Since(began); took > 30*time.Second {
			t.Errorf("ready after %v", took)
		}
	})
}

// turningNet is a crowdNet whose bad servers are quick until they turn, and then answer within
// the time-out over TCP alone.
type turningNet struct {
	*crowdNet
	turned atomic.Bool
}

func (n *turningNet) Exchange(ctx context.Context, network, addr string, q *dns.Msg) (*dns.Msg, error) {
	if n.turned.Load() && (addr[:2] == "11" || addr[:2] == "12") {
		select {
		case <-time.After(3 * time.Second):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		return nil, errSilent
	}
	return n.crowdNet.Exchange(ctx, network, addr, q)
}

// Who is honest and dear, for one of its servers is silent, does not wait behind all the names
// of a hostile domain.
func TestHonestDearNamesHaveTheirShare(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := &silentFirst{crowdNet: &crowdNet{kind: "fan-out", where: "one domain"}}
		s := NewScheduler(SchedulerConfig{})
		defer s.Close()
		c := NewChecker(Config{Resolvers: []string{"192.0.2.53"}, Exchanger: n})
		for i := range 300 {
			host := n.badHost(i)
			s.Watch(host, c, Target{Name: "_validation-persist." + host, Host: host, Accept: accept}, nil, nil)
		}
		ready := make(chan struct{})
		var once atomic.Bool
		s.Watch("k", c, Target{Name: "_validation-persist.h1.good1.test", Host: "h1.good1.test", Accept: accept}, nil, func(r Report) {
			if r.Status == StatusReady && once.CompareAndSwap(false, true) {
				close(ready)
			}
		})
		time.Sleep(5 * time.Minute)
		n.published.Store(true)
		began := time.Now()
		<-ready
		if took := time.Since(began); took > defaultGrace+5*time.Minute {
			t.Errorf("ready after %v", took)
		}
	})
}

// silentFirst is a crowdNet where the second server of good1.test is silent.
type silentFirst struct{ *crowdNet }

func (n *silentFirst) Exchange(ctx context.Context, network, addr string, q *dns.Msg) (*dns.Msg, error) {
	if addr == "192.0.2.12:53" {
		select {
		case <-time.After(2 * time.Second):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		return nil, errSilent
	}
	return n.crowdNet.Exchange(ctx, network, addr, q)
}

// slowNet is a crowdNet where every answer, or that of resolvers alone, takes longer for a while.
type slowNet struct {
	*crowdNet
	resolver, servers time.Duration
	over              atomic.Bool
}

func (n *slowNet) Exchange(ctx context.Context, network, addr string, q *dns.Msg) (*dns.Msg, error) {
	if !n.over.Load() {
		if addr == "192.0.2.53:53" {
			time.Sleep(n.resolver)
		} else {
			time.Sleep(n.servers)
		}
	}
	return n.crowdNet.Exchange(ctx, network, addr, q)
}

// A name is not dear for a slow resolver at its first look, and one whose servers were slow is
// dear no longer than they are.
func TestHonestNamesDoNotStayDear(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name              string
		resolver, servers time.Duration
		dear              bool // at first
	}{
		{"a slow resolver", time.Second, 0, false},
		{"slow servers", 0, 1500 * time.Millisecond, true},
	} {
		synctest.Test(t, func(t *testing.T) {
			n := &slowNet{crowdNet: &crowdNet{}, resolver: tt.resolver, servers: tt.servers}
			s := NewScheduler(SchedulerConfig{})
			defer s.Close()
			c := NewChecker(Config{Resolvers: []string{"192.0.2.53"}, Exchanger: n})
			target := Target{Name: "_validation-persist.h1.good1.test", Host: "h1.good1.test", Accept: accept}
			g := c.NewGate()
			c.Check(t.Context(), target, g)
			n.over.Store(true)
			s.Watch("k", c, target, g, nil)
			isDear := func() bool {
				s.mu.Lock()
				defer s.mu.Unlock()
				return s.watches["k"].lane() == laneDear
			}
			if isDear() != tt.dear {
				t.Errorf("%s: dear at first: %v", tt.name, !tt.dear)
			}
			if time.Sleep(time.Minute); isDear() {
				t.Errorf("%s: dear for ever", tt.name)
			}
		})
	}
}
