package propagation

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation/internal/ask"
)

// hostileRound is what a stranger's 32 servers show: 60 kB each, with nothing in common, and
// names and reasons as long as they may be.
func hostileRound(seed uint64, at time.Duration) Round {
	random := rand.New(rand.NewPCG(seed, uint64(at)))
	text := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte('a' + random.Uint32()%16)
		}
		return string(b)
	}
	r := Round{Name: "_validation-persist." + text(230), Zone: text(250), Mode: ModeAuthoritative, When: gateStart.Add(at)}
	for i := range 32 {
		s := ServerReport{
			Zone: r.Zone, Name: r.Name, Host: text(250), Addr: fmt.Sprintf("[2001:db8::%x]:53", i), Verdict: VerdictNo,
			Reason: text(2000), Rcode: "NOERROR " + text(300), Listed: "zone",
		}
		if i%8 == 0 {
			s.Verdict, s.Defect = VerdictSilent, CodeUnreachable
		}
		for range 60 {
			s.Values = append(s.Values, text(1000))
		}
		r.Servers = append(r.Servers, s)
	}
	r.weigh = func(v string) int { return int(v[0]) % 3 }
	return r
}

// What is kept of a name is bounded, whatever its servers show, at once or one after another.
func TestGateKeepsLittle(t *testing.T) {
	const names = 10
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	var gates []*Gate
	var reports []Report
	before := heap()
	for i := range names {
		g := NewGate(time.Minute, time.Second)
		for look := range 4 {
			r := hostileRound(uint64(i), time.Duration(look)*time.Minute)
			if look%2 == 1 { // a glance at a server that nobody has seen before
				r.Partial, r.Servers = true, r.Servers[:1]
			}
			g.Observe(r)
		}
		gates, reports = append(gates, g), append(reports, g.Report())
	}
	each := (heap() - before) / names
	t.Logf("%d octets a name", each)
	if each > 16<<10 {
		t.Errorf("%d octets are kept of a name", each)
	}
	for i, g := range gates {
		if rep := g.Report(); len(rep.Servers) == 0 || rep.MoreServers == 0 || rep.MoreValues == 0 || len(rep.Values) == 0 || len(reports[i].Summary()) == 0 {
			t.Fatalf("%d servers and %d more, %d values and %d more", len(rep.Servers), rep.MoreServers, len(rep.Values), rep.MoreValues)
		}
	}
	runtime.KeepAlive(gates)
	runtime.KeepAlive(reports)
}

// A zone of 13 hosts of both families, as large as one is asked, is kept whole.
func TestGateKeepsHonestZones(t *testing.T) {
	r := Round{Name: validationName, Zone: "example.test", Mode: ModeAuthoritative, When: gateStart}
	for i := range 26 {
		r.Servers = append(r.Servers, ServerReport{
			Zone: "example.test", Name: validationName, Host: fmt.Sprintf("ns-%d.hosting.example", i/2), Addr: fmt.Sprintf("[2001:db8:0:1::%x]:53", i),
			Network: "udp", Rcode: "NOERROR", Verdict: VerdictYes, Values: []string{wantedValue, "v=spf1 -all"},
		})
	}
	g := NewGate(time.Minute, time.Second)
	full := g.Observe(r)
	if kept := g.Report(); kept.MoreServers != 0 || kept.MoreValues != 0 || !slices.Equal(kept.Values, full.Values) || len(kept.Servers) != len(r.Servers) {
		t.Errorf("%d servers are left out, %d values: %q", kept.MoreServers, kept.MoreValues, kept.Values)
	}
	first := g.Report()
	r.When = r.When.Add(time.Minute)
	for i := range r.Servers {
		r.Servers[i].RTT = time.Millisecond
	}
	g.Observe(r)
	if again := g.Report(); &again.Servers[0] != &first.Servers[0] {
		t.Error("a look that shows nothing new is kept beside the one before")
	}
}

// The values that are wanted, and nearly, are kept before others; of the others a count and a
// digest that changes with them.
func TestValuesKept(t *testing.T) {
	long := strings.Repeat("n", 700)
	weights := map[string]int{"wanted " + strings.Repeat("w", 1500): WeightRecord, "near " + long: WeightNear}
	r := Report{Name: validationName, Servers: make([]ServerReport, 2)}
	for v := range weights {
		r.Servers[0].Values = append(r.Servers[0].Values, v)
	}
	for i := range 100 {
		r.Servers[1].Values = append(r.Servers[1].Values, fmt.Sprintf("other %d", i))
	}
	r.Servers[1].Values = append(r.Servers[1].Values, "a"+long)
	r.Values = valuesOf(r.Servers)
	weigh := func(v string) int { return weights[v] }
	short := r.Shortened(weigh)
	for v, w := range weights {
		want := v
		if w == WeightNear {
			want = v[:maxKeptValue]
		}
		if !slices.Contains(short.Values, want) {
			t.Errorf("the value %.10q is not kept", v)
		}
	}
	if len(short.Values) != maxKeptCount || slices.Contains(short.Values, "a"+long) {
		t.Errorf("%d values are kept", len(short.Values))
	}
	if short.MoreValues == 0 || short.Whole() == nil || r.Whole() != nil {
		t.Errorf("%d more; whole: %v, %v", short.MoreValues, short.Whole(), r.Whole())
	}
	r.Servers[1].Values[99], r.Values = "another", nil
	r.Values = valuesOf(r.Servers)
	if other := r.Shortened(weigh); other.RestDigest == short.RestDigest || slices.Equal(other.ValuesSeen(), short.ValuesSeen()) {
		t.Error("a change of what is left out does not show")
	}
}

// More than anybody has at a name is an error for who would write it again.
func TestWhole(t *testing.T) {
	if err := hostileRound(1, 0).Whole(); err == nil || !strings.Contains(err.Error(), "remove those that nobody needs") {
		t.Errorf("two megabytes of values: %v", err)
	}
	r := roundOf("y y", 0)
	if err := NewGate(0, 0).Observe(r).Whole(); err != nil {
		t.Error(err)
	}
	r.Err = ask.Coded(CodeLookBudget, errors.New("150 questions were asked"))
	if err := NewGate(0, 0).Observe(r).Whole(); err == nil {
		t.Error("whole although not all servers were asked")
	}
}
