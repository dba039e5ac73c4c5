package propagation

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

func TestLookAliasChain(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		aliases int
		ok      bool
	}{{8, true}, {9, false}} {
		zone := without
		name := validationName
		for i := range tt.aliases {
			next := fmt.Sprintf("a%d.example.test", i)
			zone += name + ". CNAME " + next + ".\n"
			name = next
		}
		zone += name + `. TXT "` + wantedValue + "\"\n"
		w := newWorld(t, zone, zone)
		c := w.checker()
		rep := c.Check(t.Context(), target, c.NewGate())
		if tt.ok && rep.Status != StatusReady {
			t.Errorf("%d aliases: %s", tt.aliases, rep.Summary())
		}
		if !tt.ok && (rep.Status != StatusBlocked || !strings.Contains(rep.Reason, "more than 8 CNAMEs")) {
			t.Errorf("%d aliases: %s", tt.aliases, rep.Summary())
		}
	}
}

// What a person reads where nothing is known.
func TestBlockedReasons(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		setup func(w *world)
		want  []string
	}{
		{"intercepted", func(w *world) { w.ns1.set("resolver"); w.ns2.set("resolver") }, []string{"intercepted", "port 53"}},
		{"silent", func(w *world) { w.ns1.set("silent"); w.ns2.set("silent") }, []string{"ns1.example.test (192.0.2.1:53), ns2.other.test (192.0.2.2:53): no answer over UDP (timed out) or TCP (timed out)", "port 53"}},
		{"private", func(w *world) {
			w.resolver.load(t, soaRecord+"example.test. NS ns1.example.test.\nns1.example.test. A 10.0.0.1\n")
		}, []string{"ns1.example.test (10.0.0.1:53): private address"}},
		{"no name servers", func(w *world) { w.resolver.load(t, soaRecord) }, []string{"shows no NS records", "check the delegation"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, withRecord, withRecord)
			tt.setup(w)
			c := w.checker()
			rep := c.Check(t.Context(), target, c.NewGate())
			if rep.Status != StatusBlocked {
				t.Fatalf("status %s", rep.Status)
			}
			for _, part := range tt.want {
				if !strings.Contains(rep.Summary(), part) {
					t.Errorf("summary %q lacks %q", rep.Summary(), part)
				}
			}
			t.Log(rep.Summary())
		})
	}
}

func TestPrivateAllowed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, withRecord, without)
	w.resolver.load(t, strings.Replace(otherZone, "192.0.2.2\n", "10.0.0.2\n", 1))
	w.serve("10.0.0.2", withRecord)
	c := NewChecker(Config{Resolvers: []string{"192.0.2.53"}, Exchanger: w, AllowPrivate: true})
	if got, want := verdicts(c.Look(t.Context(), target)), "ns1.example.test 192.0.2.1=yes\nns2.other.test 10.0.0.2=yes"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestResolverFailover(t *testing.T) {
	t.Parallel()
	w := newWorld(t, withRecord, withRecord)
	w.serve("192.0.2.51").set("silent")
	w.serve("192.0.2.52").set("servfail")
	c := NewChecker(Config{Resolvers: []string{"192.0.2.51", "192.0.2.52:53", "192.0.2.53"}, Exchanger: w})
	r := c.Look(t.Context(), target)
	if r.Err != nil || len(r.Servers) != 2 {
		t.Fatalf("round %+v", r)
	}

	c = NewChecker(Config{Resolvers: []string{"192.0.2.51", "192.0.2.52:53"}, Exchanger: w})
	r = c.Look(t.Context(), target)
	if r.Err == nil {
		t.Fatal("no error though no resolver works")
	}
	for _, part := range []string{"no SOA found for www.example.test", "192.0.2.51:53: no answer", "192.0.2.52:53: SERVFAIL", "set resolvers"} {
		if !strings.Contains(r.Err.Error(), part) {
			t.Errorf("error %q lacks %q", r.Err, part)
		}
	}
	if rep := NewGate(0, 0).Observe(r); rep.Status != StatusBlocked || !strings.Contains(rep.Reason, "set resolvers") {
		t.Errorf("report %+v", rep)
	}
}

func TestZoneForgottenWhenAllFail(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := &hookNet{memNet: newMemNet(t)}
		c := n.checker()
		c.Look(t.Context(), target)
		// Both old servers refuse; the zone has moved to a third.
		n.hook = func(_, addr string, q *dns.Msg) (*dns.Msg, error, bool) {
			return new(dns.Msg).SetRcode(q, dns.RcodeRefused), nil, addr == "192.0.2.1:53" || addr == "192.0.2.2:53"
		}
		n.servers["192.0.2.53:53"].load(t, soaRecord+"example.test. NS ns3.example.test.\nns3.example.test. A 192.0.2.3\n")
		n.add("192.0.2.3", t, withRecord)
		time.Sleep(10 * time.Second)
		c.Look(t.Context(), target)
		if got, want := verdicts(c.Look(t.Context(), target)), "ns3.example.test 192.0.2.3=yes"; got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	})
}

func TestRecursive(t *testing.T) {
	t.Parallel()
	w := newWorld(t, without, without)
	second := w.serve("192.0.2.54", withRecord)
	second.recurses()
	c := NewChecker(Config{Mode: ModeRecursive, Resolvers: []string{"192.0.2.53", "192.0.2.54"}, Exchanger: w})
	g := c.NewGate()
	rep := c.Check(t.Context(), target, g)
	if rep.Status != StatusPartial {
		t.Errorf("status %s, want partial: %s", rep.Status, rep.Summary())
	}
	if wait := rep.NextLookNotBefore.Sub(rep.When); wait != 120*time.Second {
		t.Errorf("next look not before %v, want the negative TTL, 2m", wait)
	}
	w.resolver.load(t, withRecord)
	if rep = c.Check(t.Context(), target, NewGate(0, 0)); rep.Status != StatusReady {
		t.Errorf("status %s, want ready: %s", rep.Status, rep.Summary())
	}
	second.set("servfail")
	g = NewGate(time.Nanosecond, time.Nanosecond)
	for range 3 {
		rep = c.Check(t.Context(), target, g)
	}
	if rep.Status != StatusPartial {
		t.Errorf("status %s with a failing resolver, want partial: %s", rep.Status, rep.Summary())
	}
	if w.asked("rd=false") != 0 || w.asked("192.0.2.1:53") != 0 {
		t.Error("more than the resolvers was asked")
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	w := newWorld(t, withRecord, withRecord)
	c := w.checker()
	rep := c.Check(t.Context(), target, c.NewGate())
	if rep.Status != StatusReady {
		t.Fatalf("complete at first look: %s", rep.Summary())
	}
	if n := w.asked(" " + validationName + ". TXT"); n != 4 {
		t.Errorf("%d questions for the record, want two rounds of 2", n)
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	g := c.NewGate()
	if rep := c.Check(ctx, target, g); !rep.When.IsZero() {
		t.Errorf("a cancelled look counted: %+v", rep)
	}
}
