package propagation

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	validationName = "_validation-persist.www.example.test"
	wantedValue    = "ca.example; accounturi=https://ca.example/acct/1"

	soaRecord  = "example.test. SOA ns1.example.test. h.example.test. 7 3600 600 86400 120\n"
	withRecord = soaRecord + exampleNS + `_Validation-Persist.WWW.example.test. TXT "ca.example; " "accounturi=https://ca.example/acct/1"` + "\n"
	without    = soaRecord + exampleNS
	exampleNS  = `
example.test. NS ns1.example.test.
example.test. NS ns2.other.test.
ns1.example.test. A 192.0.2.1
www.example.test. A 192.0.2.80
`
	otherZone = `other.test. SOA ns1.other.test. h.other.test. 1 3600 600 86400 120
other.test. NS ns1.other.test.
ns1.other.test. A 192.0.2.11
ns2.other.test. A 192.0.2.2
`
)

func accept(values []string) (bool, string) {
	return slices.Contains(values, wantedValue), "no record for this account"
}

var target = Target{Name: validationName, Host: "www.example.test", Accept: accept}

// world is example.test at two hosts, and a resolver that knows its servers
// but not the validation name.
type world struct {
	*testNet
	resolver, ns1, ns2 *testServer
}

func newWorld(t *testing.T, ns1, ns2 string) *world {
	t.Helper()
	n := newTestNet(t)
	w := &world{testNet: n}
	w.resolver = n.serve("192.0.2.53", without, otherZone)
	w.resolver.recurses()
	w.ns1 = n.serve("192.0.2.1", ns1)
	w.ns2 = n.serve("192.0.2.2", ns2)
	return w
}

func (w *world) checker() *Checker {
	return NewChecker(Config{Resolvers: []string{"192.0.2.53"}, Exchanger: w})
}

// verdicts shows a round as "zone host addr verdict" lines, sorted.
func verdicts(r Round) string {
	var lines []string
	for _, s := range r.Servers {
		lines = append(lines, fmt.Sprintf("%s %s=%s", s.Host, strings.TrimSuffix(s.Addr, ":53"), s.Verdict))
	}
	slices.Sort(lines)
	if r.Err != nil {
		lines = append(lines, "error: "+r.Err.Error())
	}
	return strings.Join(lines, "\n")
}

func TestLookAtMisbehavingServer(t *testing.T) {
	t.Parallel()
	tests := []struct {
		mode   string
		want   Verdict
		reason string
	}{
		{"", VerdictYes, ""},
		{"nodata", VerdictNo, "no TXT record"},
		{"silent", VerdictSilent, "no answer over UDP"},
		{"silent-udp", VerdictYes, ""},
		{"servfail", VerdictBroken, "SERVFAIL"},
		{"refused", VerdictBroken, "Not Authoritative"},
		{"formerr-edns", VerdictYes, ""},
		{"resolver", VerdictBroken, "intercepted"},
		{"no-aa", VerdictYes, "does not set AA"},
		{"empty-no-aa", VerdictBroken, "lame"},
		{"upward", VerdictBroken, "lame"},
		{"tc", VerdictYes, ""},
		{"tc-only", VerdictBroken, "TCP"},
		{"other-case", VerdictYes, ""},
		{"liars-first", VerdictYes, ""},
		{"unparsable", VerdictYes, ""},
	}
	for _, tt := range tests {
		t.Run("mode="+tt.mode, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, withRecord, withRecord)
			w.ns2.set(tt.mode)
			r := w.checker().Look(t.Context(), target)
			if r.Err != nil || r.Zone != "example.test" || r.Name != validationName || len(r.Servers) != 2 {
				t.Fatalf("round: %+v", r)
			}
			for _, s := range r.Servers {
				want := VerdictYes
				if s.Host == "ns2.other.test" {
					want = tt.want
					if !strings.Contains(s.Reason, tt.reason) {
						t.Errorf("reason %q, want it to contain %q", s.Reason, tt.reason)
					}
				}
				if s.Verdict != want {
					t.Errorf("%s: verdict %s (%s), want %s", s.Host, s.Verdict, s.Reason, want)
				}
			}
			if n := w.asked("192.0.2.53:53", "_validation-persist"); n != 0 {
				t.Errorf("a resolver was asked for the validation name %d times", n)
			}
			if n := w.asked("192.0.2.53:53", "rd=false") + w.asked("192.0.2.2:53", "rd=true"); n != 0 {
				t.Error("wrong RD")
			}
		})
	}
}

func TestLookValues(t *testing.T) {
	t.Parallel()
	quoted := without + `_validation-persist.www.example.test. TXT "a\"b\\c\200;d"` + "\n" +
		`_validation-persist.www.example.test. TXT "second"` + "\n"
	w := newWorld(t, quoted, without)
	r := w.checker().Look(t.Context(), target)
	for _, s := range r.Servers {
		if s.Verdict != VerdictNo {
			t.Errorf("%s: %s", s.Host, s.Verdict)
		}
		if s.Host == "ns1.example.test" {
			if want := []string{"a\"b\\c\xc8;d", "second"}; !slices.Equal(s.Values, want) {
				t.Errorf("values %q, want %q", s.Values, want)
			}
			if s.Reason != "no record for this account" || s.TTL != 300 {
				t.Errorf("report %+v", s)
			}
		} else if s.Rcode != "NXDOMAIN" || s.Serial != 7 || s.NegativeTTL != 120 {
			t.Errorf("report %+v", s)
		}
	}
}

func TestLookTwiceDiscoversOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, without, without)
	c := w.checker()
	c.Look(t.Context(), target)
	before := w.asked("192.0.2.53:53")
	if before == 0 {
		t.Fatal("no discovery")
	}
	w.checker().Look(t.Context(), Target{Name: "_validation-persist.b.example.test"})
	if after := w.asked("192.0.2.53:53"); after != before {
		t.Errorf("%d more discovery queries for a further name of the zone", after-before)
	}
}

func TestGlanceRotates(t *testing.T) {
	t.Parallel()
	w := newWorld(t, without, withRecord)
	c := w.checker()
	var got []string
	for n := range 3 {
		r := c.Glance(t.Context(), target, n)
		if len(r.Servers) != 1 || !r.Partial {
			t.Fatalf("round %+v", r)
		}
		got = append(got, r.Servers[0].Host+" "+string(r.Servers[0].Verdict))
	}
	want := []string{"ns1.example.test no", "ns2.other.test yes", "ns1.example.test no"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// The shapes that the way to the record can have.
func TestLookWays(t *testing.T) {
	t.Parallel()
	const delegatedLabel = "_validation-persist.www.example.test. NS nsd.other.test.\n"
	const txt = `TXT "` + wantedValue + "\"\n"
	const childZone = "_validation-persist.www.example.test. SOA nsd.other.test. h.other.test. 3 1 1 1 60\n" +
		"_validation-persist.www.example.test. NS nsd.other.test.\n"
	const subSOA = "www.example.test. SOA ns1.example.test. h.example.test. 5 1 1 1 60\n" +
		"www.example.test. NS ns1.example.test.\nwww.example.test. NS nsd.other.test.\n"
	const alias = "_validation-persist.www.example.test. CNAME v.target.test.\n"
	const targetZone = "target.test. SOA ns.target.test. h.target.test. 9 1 1 1 60\n" +
		"target.test. NS ns.target.test.\nns.target.test. A 192.0.2.31\n"

	tests := []struct {
		name  string
		setup func(t *testing.T, w *world)
		want  string
	}{
		{"validation label delegated", func(t *testing.T, w *world) {
			w.ns1.load(t, without+delegatedLabel)
			w.ns2.load(t, without+delegatedLabel)
			w.serve("192.0.2.21", childZone+validationName+". "+txt)
			w.resolver.load(t, otherZone+"nsd.other.test. A 192.0.2.21\n")
		}, "nsd.other.test 192.0.2.21=yes"},
		{"delegated on one server only", func(t *testing.T, w *world) {
			w.ns1.load(t, without+delegatedLabel)
			w.serve("192.0.2.21", childZone+validationName+". "+txt)
			w.resolver.load(t, otherZone+"nsd.other.test. A 192.0.2.21\n")
		}, "ns2.other.test 192.0.2.2=no\nnsd.other.test 192.0.2.21=yes"},
		{"child lists a server more than the parent", func(t *testing.T, w *world) {
			w.ns1.load(t, without+delegatedLabel)
			w.ns2.load(t, without+delegatedLabel)
			w.serve("192.0.2.21", childZone+"_validation-persist.www.example.test. NS nse.other.test.\n"+validationName+". "+txt)
			w.serve("192.0.2.22", childZone)
			w.resolver.load(t, otherZone+"nsd.other.test. A 192.0.2.21\nnse.other.test. A 192.0.2.22\n")
		}, "nsd.other.test 192.0.2.21=yes\nnse.other.test 192.0.2.22=no"},
		{"cut hidden in a server of both zones", func(t *testing.T, w *world) {
			// The resolver does not show the cut, and both servers of the
			// upper zone serve the lower one too, which has one more.
			for _, s := range []*testServer{w.ns1, w.ns2} {
				s.load(t, subSOA+validationName+". "+txt)
			}
			w.serve("192.0.2.21", subSOA)
			w.resolver.load(t, otherZone+"nsd.other.test. A 192.0.2.21\n")
		}, "ns1.example.test 192.0.2.1=yes\nnsd.other.test 192.0.2.21=no"},
		{"cut hidden in negative answers", func(t *testing.T, w *world) {
			for _, s := range []*testServer{w.ns1, w.ns2} {
				s.load(t, subSOA)
			}
			w.serve("192.0.2.21", subSOA+validationName+". "+txt)
			w.resolver.load(t, otherZone+"nsd.other.test. A 192.0.2.21\n")
		}, "ns1.example.test 192.0.2.1=no\nnsd.other.test 192.0.2.21=yes"},
		{"alias to another zone", func(t *testing.T, w *world) {
			w.ns1.load(t, without+alias)
			w.ns2.load(t, without+alias)
			w.serve("192.0.2.31", targetZone+"v.target.test. "+txt)
			w.resolver.load(t, targetZone)
		}, "ns.target.test 192.0.2.31=yes\nns1.example.test 192.0.2.1=yes\nns2.other.test 192.0.2.2=yes"},
		{"alias on one server only", func(t *testing.T, w *world) {
			w.ns1.load(t, without+alias)
			w.serve("192.0.2.31", targetZone+"v.target.test. "+txt)
			w.resolver.load(t, targetZone)
		}, "ns.target.test 192.0.2.31=yes\nns1.example.test 192.0.2.1=yes\nns2.other.test 192.0.2.2=no"},
		{"alias to nothing", func(t *testing.T, w *world) {
			w.ns1.load(t, without+alias)
			w.ns2.load(t, without+alias)
			w.serve("192.0.2.31", targetZone)
			w.resolver.load(t, targetZone)
		}, "ns.target.test 192.0.2.31=no\nns1.example.test 192.0.2.1=yes\nns2.other.test 192.0.2.2=yes"},
		{"alias loop", func(t *testing.T, w *world) {
			loop := without + "_validation-persist.www.example.test. CNAME a.example.test.\na.example.test. CNAME _validation-persist.www.EXAMPLE.test.\n"
			w.ns1.load(t, loop)
			w.ns2.load(t, loop)
		}, "ns1.example.test 192.0.2.1=yes\nns1.example.test 192.0.2.1=yes\nns2.other.test 192.0.2.2=yes\nns2.other.test 192.0.2.2=yes\n" +
			"error: CNAME loop: _validation-persist.www.example.test → a.example.test → _validation-persist.www.example.test; remove the CNAME"},
		{"SOA records made up", func(t *testing.T, w *world) {
			w.ns1.set("odd-soa")
			w.ns2.set("odd-soa")
		}, "ns1.example.test 192.0.2.1=no\nns2.other.test 192.0.2.2=no"},
		{"host is an alias into another zone", func(t *testing.T, w *world) {
			w.ns1.load(t, withRecord)
			w.ns2.load(t, withRecord)
			w.resolver.load(t, soaRecord+"example.test. NS ns1.example.test.\nns1.example.test. A 192.0.2.1\nwww.example.test. CNAME cdn.target.test.\n")
			w.resolver.load(t, targetZone)
		}, "ns1.example.test 192.0.2.1=yes"},
		{"IPv6 dead", func(t *testing.T, w *world) {
			w.ns1.load(t, withRecord)
			w.ns2.load(t, withRecord)
			w.resolver.load(t, otherZone+"ns2.other.test. AAAA 2001:db8::2\n")
		}, "ns1.example.test 192.0.2.1=yes\nns2.other.test 192.0.2.2=yes\nns2.other.test [2001:db8::2]=silent"},
		{"IPv6 stale", func(t *testing.T, w *world) {
			w.ns1.load(t, withRecord)
			w.ns2.load(t, withRecord)
			w.serve("2001:db8::2", without)
			w.resolver.load(t, otherZone+"ns2.other.test. AAAA 2001:db8::2\n")
		}, "ns1.example.test 192.0.2.1=yes\nns2.other.test 192.0.2.2=yes\nns2.other.test [2001:db8::2]=no"},
		{"private, unspecified and multicast addresses", func(t *testing.T, w *world) {
			w.ns1.load(t, withRecord)
			w.resolver.load(t, strings.Replace(otherZone, "192.0.2.2\n", "10.0.0.2\nns2.other.test. A 0.0.0.0\nns2.other.test. AAAA ff02::1\nns2.other.test. AAAA ::ffff:127.0.0.1\n", 1))
			w.serve("10.0.0.2", withRecord)
			w.serve("127.0.0.1", withRecord)
		}, "ns1.example.test 192.0.2.1=yes\nns2.other.test 10.0.0.2=broken\nns2.other.test 127.0.0.1=broken"},
		{"host without address", func(t *testing.T, w *world) {
			w.ns1.load(t, withRecord)
			w.resolver.load(t, strings.Replace(otherZone, "ns2.other.test. A 192.0.2.2\n", "", 1))
		}, "ns1.example.test 192.0.2.1=yes\nns2.other.test =broken"},
		{"no such top-level domain", func(t *testing.T, w *world) {
			w.resolver.mu.Lock()
			defer w.resolver.mu.Unlock()
			clear(w.resolver.zones)
		}, "error: no SOA found for www.example.test from 192.0.2.53:53: NXDOMAIN for www.example.test: its top-level domain does not exist there; check the name, or set resolvers that know it"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, without, without)
			tt.setup(t, w)
			c := w.checker()
			for range 2 { // the second from the cache
				r := c.Look(t.Context(), target)
				if got := verdicts(r); got != tt.want {
					t.Errorf("got\n%s\nwant\n%s", got, tt.want)
				}
			}
			if n := w.asked("192.0.2.53:53", "_validation-persist"); n != 0 {
				t.Errorf("a resolver was asked for the validation name %d times", n)
			}
		})
	}
}

func TestLookAliasChain(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		aliases int
		ok      bool
	}{{10, true}, {11, false}} {
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
		if !tt.ok && (rep.Status != StatusBlocked || !strings.Contains(rep.Reason, "more than 10 CNAMEs")) {
			t.Errorf("%d aliases: %s", tt.aliases, rep.Summary())
		}
	}
}

// What a person reads where nothing can be said.
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
	w := newWorld(t, withRecord, withRecord)
	c := w.checker()
	c.Look(t.Context(), target)
	z := c.discovery.known("www.example.test.")
	if z == nil {
		t.Fatal("zone not cached")
	}
	old := *z
	old.fetched = time.Now().Add(-minAgeToDrop)
	c.discovery.cache.put(&cacheEntry{key: c.discovery.key(z.name), zone: &old, expires: time.Now().Add(time.Hour)})

	// Both old servers refuse; the zone has moved to a third.
	w.ns1.set("refused")
	w.ns2.set("refused")
	w.resolver.load(t, soaRecord+"example.test. NS ns3.example.test.\nns3.example.test. A 192.0.2.3\n")
	w.serve("192.0.2.3", withRecord)
	c.Look(t.Context(), target)
	if got, want := verdicts(c.Look(t.Context(), target)), "ns3.example.test 192.0.2.3=yes"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
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

	w.ns2.set("flap") // yes, no, yes, no
	g = NewGate(time.Nanosecond, time.Nanosecond)
	for range 6 {
		if rep := c.Check(t.Context(), target, g); rep.Status == StatusReady {
			t.Fatal("ready while a server flaps")
		}
	}
}

// Thirty-two addresses are enough, and no host is left out for the second
// address of another.
func TestServersLimit(t *testing.T) {
	t.Parallel()
	z := &zone{name: "example.test."}
	for i := range 20 {
		h := nsHost{name: fmt.Sprintf("ns%02d.", i)}
		for j := range 3 {
			h.addrs = append(h.addrs, mustAddr(fmt.Sprintf("192.0.%d.%d", j, i+1)))
		}
		z.hosts = append(z.hosts, h)
	}
	servers := z.servers()
	hosts := make(map[string]bool)
	for _, s := range servers {
		hosts[s.host] = true
	}
	if len(servers) != 32 || len(hosts) != 20 {
		t.Errorf("%d servers of %d hosts", len(servers), len(hosts))
	}
}
