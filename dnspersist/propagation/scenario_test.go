package propagation

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

// parentZone is the zone above example.test, which lists its own set of servers.
const parentZone = `test. SOA ns.test. h.test. 1 3600 600 86400 60
test. NS ns.test.
ns.test. A 192.0.2.200
`

// TestScenarios puts the servers of example.test (ns1, and ns2 in another zone) into the
// states of the survey in docs/scenarios.md, whose numbers the names carry. until is when the
// gate has decided, with a grace of 400 ms and a settle time of 100 ms.
func TestScenarios(t *testing.T) {
	t.Parallel()
	const txt = `TXT "` + wantedValue + "\"\n"
	const alias = "_validation-persist.www.example.test. CNAME v.target.test.\n"
	const targetZone = "target.test. SOA ns.target.test. h.target.test. 9 1 1 1 60\n" +
		"target.test. NS ns.target.test.\nns.target.test. A 192.0.2.31\n"
	parentOf := func(t *testing.T, w *world, delegation string) {
		w.serve("192.0.2.200", parentZone+delegation)
		w.resolver.load(t, parentZone)
	}
	for _, tt := range []struct {
		name  string
		setup func(t *testing.T, w *world)
		want  Status
		codes []Code
		not   []Code
	}{
		{"01 everywhere", func(*testing.T, *world) {}, StatusReady, []Code{CodeReady}, []Code{CodeMismatch, CodeUnreachable}},
		{"02 nowhere", func(t *testing.T, w *world) { w.ns1.load(t, without); w.ns2.load(t, without) }, StatusAbsent, []Code{CodeAbsent}, nil},
		{"04 one stale", func(t *testing.T, w *world) { w.ns2.load(t, without) }, StatusPartial, []Code{CodePartial}, nil},
		{"05 one stale with other records", func(_ *testing.T, w *world) { w.ns1.set("nodata") }, StatusPartial, []Code{CodePartial}, nil},
		{"06 stale over IPv6 only", func(t *testing.T, w *world) {
			w.serve("2001:db8::2", without)
			w.resolver.load(t, otherZone+"ns2.other.test. AAAA 2001:db8::2\n")
		}, StatusPartial, []Code{CodePartial}, nil},
		{"07 one fails", func(_ *testing.T, w *world) { w.ns2.set("servfail") }, StatusReady, []Code{CodeServfail}, nil},
		{"08 one refuses", func(_ *testing.T, w *world) { w.ns2.set("refused") }, StatusReady, []Code{CodeLame}, nil},
		{"09 one silent", func(_ *testing.T, w *world) { w.ns2.set("silent") }, StatusReady, []Code{CodeUnreachable}, []Code{CodePort53Blocked}},
		{"10 one port closed", func(t *testing.T, w *world) {
			w.mu.Lock()
			delete(w.servers, "192.0.2.2:53")
			w.mu.Unlock()
		}, StatusReady, []Code{CodeUnreachable}, nil},
		{"13 all silent", func(_ *testing.T, w *world) { w.ns1.set("silent"); w.ns2.set("silent") }, StatusBlocked, []Code{CodePort53Blocked, CodeUnreachable}, nil},
		{"16 upward referral", func(_ *testing.T, w *world) { w.ns2.set("upward") }, StatusReady, []Code{CodeLame}, nil},
		{"17 the parent lists a stale server more", func(t *testing.T, w *world) {
			parentOf(t, w, "example.test. NS ns1.example.test.\nexample.test. NS ns2.other.test.\nexample.test. NS old.example.test.\nold.example.test. A 192.0.2.3\n")
			w.serve("192.0.2.3", without)
		}, StatusPartial, []Code{CodeMismatch, CodePartial}, nil},
		{"17 the parent lists a dead server more", func(t *testing.T, w *world) {
			parentOf(t, w, "example.test. NS ns1.example.test.\nexample.test. NS ns2.other.test.\nexample.test. NS old.example.test.\nold.example.test. A 192.0.2.3\n")
		}, StatusReady, []Code{CodeMismatch, CodeUnreachable}, nil},
		{"18 the zone lists a stale server more", func(t *testing.T, w *world) {
			parentOf(t, w, "example.test. NS ns1.example.test.\nns1.example.test. A 192.0.2.1\n")
			w.ns2.load(t, without)
		}, StatusPartial, []Code{CodeMismatch}, nil},
		{"18 both list the same", func(t *testing.T, w *world) {
			parentOf(t, w, "example.test. NS ns1.example.test.\nexample.test. NS ns2.other.test.\n")
		}, StatusReady, nil, []Code{CodeMismatch}},
		{"21 alias to another zone", func(t *testing.T, w *world) {
			w.ns1.load(t, without+alias)
			w.ns2.load(t, without+alias)
			w.serve("192.0.2.31", targetZone+"v.target.test. "+txt)
			w.resolver.load(t, targetZone)
		}, StatusReady, []Code{CodeAlias}, []Code{CodeAliasDead}},
		{"22 alias on one server only", func(t *testing.T, w *world) {
			w.ns1.load(t, without+alias)
			w.ns2.load(t, without)
			w.serve("192.0.2.31", targetZone+"v.target.test. "+txt)
			w.resolver.load(t, targetZone)
		}, StatusPartial, []Code{CodeAlias, CodePartial}, nil},
		{"23 one of the target's servers stale", func(t *testing.T, w *world) {
			w.ns1.load(t, without+alias)
			w.ns2.load(t, without+alias)
			second := targetZone + "target.test. NS ns2.target.test.\nns2.target.test. A 192.0.2.32\n"
			w.serve("192.0.2.31", second+"v.target.test. "+txt)
			w.serve("192.0.2.32", second)
			w.resolver.load(t, second)
		}, StatusPartial, []Code{CodePartial}, nil},
		{"24 alias loop", func(t *testing.T, w *world) {
			loop := without + "_validation-persist.www.example.test. CNAME a.example.test.\na.example.test. CNAME _validation-persist.www.example.test.\n"
			w.ns1.load(t, loop)
			w.ns2.load(t, loop)
		}, StatusBlocked, []Code{CodeAliasLoop}, nil},
		{"25 dangling alias", func(t *testing.T, w *world) {
			w.ns1.load(t, without+alias)
			w.ns2.load(t, without+alias)
			w.serve("192.0.2.31", targetZone)
			w.resolver.load(t, targetZone)
		}, StatusAbsent, []Code{CodeAliasDead}, []Code{CodeAlias}},
		{"30 a hidden primary has the record", func(t *testing.T, w *world) {
			hidden := strings.Replace(without, "SOA ns1.example.test.", "SOA hidden.example.test.", 1) + "hidden.example.test. A 192.0.2.99\n"
			w.ns1.load(t, hidden)
			w.ns2.load(t, hidden)
			w.resolver.load(t, hidden)
			w.serve("192.0.2.99", withRecord)
		}, StatusAbsent, []Code{CodeAbsent}, nil},
		{"34 the resolver fails at names with an underscore", func(_ *testing.T, w *world) { w.resolver.set("underscore-fails") }, StatusReady, nil, nil},
		{"35 the resolver strips the authority section", func(_ *testing.T, w *world) { w.resolver.set("no-authority") }, StatusReady, nil, nil},
		{"36 private servers", func(t *testing.T, w *world) {
			w.resolver.load(t, soaRecord+"example.test. NS ns1.example.test.\nns1.example.test. A 10.0.0.1\n")
		}, StatusBlocked, []Code{CodePrivate}, nil},
		{"37 intercepted", func(_ *testing.T, w *world) { w.ns1.set("resolver"); w.ns2.set("resolver") }, StatusBlocked, []Code{CodeIntercepted}, []Code{CodeReady}},
		{"38 no AA", func(_ *testing.T, w *world) { w.ns1.set("no-aa"); w.ns2.set("no-aa") }, StatusReady, []Code{CodeAAMissing}, nil},
		{"39 truncated, TCP works", func(_ *testing.T, w *world) { w.ns2.set("tc") }, StatusReady, nil, []Code{CodeTCPBlocked}},
		{"39 truncated, no TCP", func(_ *testing.T, w *world) { w.ns1.set("tc-only"); w.ns2.set("tc-only") }, StatusBlocked, []Code{CodeTCPBlocked}, nil},
		{"41 no EDNS", func(_ *testing.T, w *world) { w.ns2.set("formerr-edns") }, StatusReady, nil, nil},
		{"42 other letters", func(_ *testing.T, w *world) { w.ns2.set("other-case") }, StatusReady, nil, nil},
		{"44 forged datagrams first", func(_ *testing.T, w *world) { w.ns2.set("liars-first") }, StatusReady, nil, nil},
		{"47 signed and bogus", func(t *testing.T, w *world) {
			w.resolver.load(t, soaRecord+exampleNS+"example.test. DS 1 13 2 "+strings.Repeat("00", 32)+"\n"+validationName+". "+txt)
			w.resolver.set("bogus")
		}, StatusBlocked, []Code{CodeBogus}, []Code{CodeReady}},
		{"47 signed, bogus and delegated", func(t *testing.T, w *world) {
			const child = validationName + ". SOA nsd.other.test. h.other.test. 3 1 1 1 60\n" + validationName + ". NS nsd.other.test.\n"
			w.ns1.load(t, without+validationName+". NS nsd.other.test.\n")
			w.ns2.load(t, without+validationName+". NS nsd.other.test.\n")
			w.serve("192.0.2.21", child+validationName+". "+txt)
			w.resolver.load(t, otherZone+"nsd.other.test. A 192.0.2.21\n")
			w.resolver.load(t, soaRecord+exampleNS+"example.test. DS 1 13 2 "+strings.Repeat("00", 32)+"\n"+validationName+". "+txt)
			w.resolver.set("bogus")
		}, StatusBlocked, []Code{CodeBogus}, []Code{CodeReady}},
		{"46 signed and good", func(t *testing.T, w *world) {
			w.resolver.load(t, soaRecord+exampleNS+"example.test. DS 1 13 2 "+strings.Repeat("00", 32)+"\n"+validationName+". "+txt)
		}, StatusReady, nil, []Code{CodeBogus}},
		{"46 the resolver fails, signed or not", func(t *testing.T, w *world) {
			w.resolver.load(t, soaRecord+exampleNS+"example.test. DS 1 13 2 "+strings.Repeat("00", 32)+"\n")
			w.resolver.set("txt-servfail")
		}, StatusReady, nil, []Code{CodeBogus}},
		{"52 not delegated", func(t *testing.T, w *world) {
			w.resolver.forget("example.test.")
			w.resolver.load(t, parentZone)
			w.serve("192.0.2.200", parentZone)
		}, StatusAbsent, []Code{CodeAbsent, CodeNotDelegated}, nil},
		{"52 a zone of one's own directly below the root", func(t *testing.T, w *world) {
			w.resolver.forget("example.test.")
			w.resolver.load(t, parentZone)
			w.serve("192.0.2.200", parentZone+validationName+". "+txt)
		}, StatusReady, nil, []Code{CodeNotDelegated}},
		{"54 a host without address", func(t *testing.T, w *world) {
			w.resolver.load(t, withMore("example.test. NS nowhere.other.test.\n"))
		}, StatusReady, []Code{CodeNoAddress}, nil},
		{"54 a host that is a CNAME", func(t *testing.T, w *world) {
			w.resolver.load(t, withMore("example.test. NS alias.example.test.\nalias.example.test. CNAME ns1.example.test.\n"))
		}, StatusReady, nil, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, withRecord, withRecord)
			tt.setup(t, w)
			c := NewChecker(Config{Resolvers: []string{"192.0.2.53"}, Exchanger: w, Grace: 400 * time.Millisecond, Settle: 100 * time.Millisecond})
			g := c.NewGate()
			var rep Report
			deadline := time.Now().Add(6 * time.Second)
			for looks := 0; ; looks++ {
				rep = c.Check(t.Context(), target, g)
				if rep.Status == tt.want && looks > 4 || rep.Status == StatusReady || time.Now().After(deadline) {
					break
				}
				waitUntil(t, rep.LookAgainAt)
			}
			codes := rep.Codes()
			if rep.Status != tt.want {
				t.Errorf("status %s, want %s: %s", rep.Status, tt.want, rep.Summary())
			}
			for _, code := range tt.codes {
				if !slices.Contains(codes, code) {
					t.Errorf("codes %v lack %s", codes, code)
				}
			}
			for _, code := range tt.not {
				if slices.Contains(codes, code) {
					t.Errorf("codes %v contain %s", codes, code)
				}
			}
			for _, d := range rep.Diagnostics() {
				if d.Text == "" || strings.ContainsAny(d.Text, "\n\x00") {
					t.Errorf("diagnostic %+v", d)
				}
			}
			if w.asked("192.0.2.99:53") > 0 {
				t.Error("a server that no NS record names was asked")
			}
			if !strings.HasPrefix(tt.name, "46") && !strings.HasPrefix(tt.name, "47") && w.asked("192.0.2.53:53", "_validation-persist") > 0 {
				t.Error("a resolver was asked for the validation name")
			}
		})
	}
}

// A server that has the record in every other answer is never taken for one that has it.
func TestScenario15OneFlaps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &hookNet{memNet: newMemNet(t)}
		n.publish(t, "192.0.2.1")
		answers := 0
		n.hook = func(_, addr string, q *dns.Msg) (*dns.Msg, error, bool) {
			if addr == "192.0.2.2:53" && q.Question[0].Qtype == dns.TypeTXT {
				if answers++; answers%2 == 1 {
					n.publish(t, "192.0.2.2")
				} else {
					n.servers[addr].load(t, without)
				}
			}
			return nil, nil, false
		}
		for _, settle := range []time.Duration{time.Nanosecond, DefaultSettle} {
			g := NewGate(time.Minute, settle)
			for range 10 {
				rep := n.checker().Check(t.Context(), target, g)
				if rep.Status == StatusReady || slices.Contains(rep.Codes(), CodeReady) {
					t.Fatalf("ready after %d answers: %s", answers, rep.Summary())
				}
				waitUntil(t, rep.LookAgainAt)
			}
		}
	})
}

// withMore is example.test with one more line, as the resolver knows it.
func withMore(line string) string { return without + line }

// waitUntil waits for the next look that a gate asks for, at most a moment.
func waitUntil(t *testing.T, at time.Time) {
	t.Helper()
	timer := time.NewTimer(min(max(time.Until(at), 5*time.Millisecond), 200*time.Millisecond))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.Context().Done():
	}
}
