package parking

import (
	"fmt"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

// TestNews checks what is worth a line in the log.
func TestNews(t *testing.T) {
	absent := propagation.Report{Status: propagation.StatusAbsent}
	values := func(v ...string) propagation.Report {
		r := absent
		r.Values = v
		return r
	}
	wrong := func(code record.Code) acmepersist.Finding {
		return acmepersist.Finding{Values: []acmepersist.ValueVerdict{{Code: code, Reason: "r"}}}
	}
	ready := propagation.Report{Status: propagation.StatusReady}
	slow := absent
	slow.Servers = []propagation.ServerReport{{Host: "ns1.test", Addr: "192.0.2.1:53", Verdict: propagation.VerdictNo, Defect: propagation.CodeEDNSBroken}}
	type step struct {
		report  propagation.Report
		finding acmepersist.Finding
		want    newsKind
	}
	none := acmepersist.Finding{}
	for name, steps := range map[string][]step{
		"first look":         {{absent, none, newsNone}, {absent, none, newsNone}},
		"wrong at the first": {{values("x"), wrong("foreign"), newsNone}, {values("x"), wrong("foreign"), newsNone}},
		"appears":            {{absent, none, newsNone}, {ready, none, newsStatus}, {ready, none, newsNone}},
		"a wrong value": {
			{absent, none, newsNone},
			{values("x"), wrong("foreign"), newsWrong},
			{values("x"), wrong("foreign"), newsNone},
			{values("y"), wrong("malformed"), newsWrong},
			{absent, none, newsDiffers},
		},
		"other values, equally wrong": {{values("x"), wrong("foreign"), newsNone}, {values("y"), wrong("foreign"), newsDiffers}},
		"a server's fault":            {{absent, none, newsNone}, {slow, none, newsNone}},
	} {
		var n news
		for i, s := range steps {
			if got := n.take(s.report, s.finding, time.Unix(int64(i), 0)); got != s.want {
				t.Errorf("%s, step %d: %d, want %d", name, i, got, s.want)
			}
		}
	}
}

// A zone that changes at every look is not a tap on the log.
func TestNewsAreBounded(t *testing.T) {
	var n news
	lines := make(map[newsKind]int)
	now := time.Unix(0, 0)
	for i := range 2 * 60 * 60 {
		r := propagation.Report{Status: propagation.StatusAbsent, Values: []string{fmt.Sprint(i)}}
		lines[n.take(r, acmepersist.Finding{}, now)]++
		now = now.Add(time.Second)
	}
	if lines[newsDiffers] != 2*newsMost || lines[newsTooMuch] != 2 {
		t.Errorf("in two hours: %v", lines)
	}
}

// What is wrong with a server is logged once, however many names it has.
func TestServerFaultsAreLoggedOnce(t *testing.T) {
	core, logs := observer.New(zap.DebugLevel)
	faults := make(serverFaults)
	r := propagation.Report{Status: propagation.StatusAbsent, Zone: "example.test", Servers: []propagation.ServerReport{
		{Zone: "example.test", Host: "ns1.test", Addr: "192.0.2.1:53", Verdict: propagation.VerdictNo, Defect: propagation.CodeEDNSBroken},
		{Zone: "example.test", Host: "ns2.test", Addr: "192.0.2.2:53", Verdict: propagation.VerdictNo},
	}}
	for range 500 {
		for _, d := range faults.news(r, time.Now()) {
			writeFault(zap.New(core), d, r.Zone, false)
		}
	}
	if n := logs.FilterLevelExact(zap.WarnLevel).Len(); n != 1 {
		t.Errorf("%d lines", n)
	}
	now := time.Unix(0, 0)
	for i := range 3 * mostFaults {
		faults.isNew(serverFault{fmt.Sprint(i), "x"}, now.Add(time.Duration(i)))
	}
	if n := len(faults); n > mostFaults {
		t.Errorf("%d faults are remembered", n)
	}
	if fault := (serverFault{fmt.Sprint(3*mostFaults - 1), "x"}); faults.isNew(fault, now) || !faults.isNew(fault, now.Add(2*faultAgain)) {
		t.Error("a fault is not known, or never logged again")
	}
}

// What somebody has to act on is a warning for whoever runs the server, and none where a tenant asked for
// the name: nobody here can mend it.
func TestLevelOfNews(t *testing.T) {
	f := acmepersist.Finding{Values: []acmepersist.ValueVerdict{{Code: record.CodeForeign, Reason: "r"}}, Do: "d"}
	for _, onDemand := range []bool{false, true} {
		for kind, want := range map[newsKind]zapcore.Level{
			newsDiffers: zap.InfoLevel, newsStatus: zap.WarnLevel, newsWrong: zap.WarnLevel, newsTooMuch: zap.WarnLevel,
		} {
			if onDemand {
				want = zap.DebugLevel
			}
			inBubble(t, func(t *testing.T, w *world) {
				o := w.configure("a")
				defer w.end(o)
				o.onDemand = onDemand
				_ = w.attempt(t.Context(), o, "a.example", missing("a.example", "v"))
				w.change(o, "a.example", func(e *entry) {
					e.logNews(kind, propagation.Report{Status: propagation.StatusAbsent}, f)
					e.logNews(newsNone, propagation.Report{}, f)
				})
				if all := w.logs.TakeAll(); len(all) != 1 || all[0].Level != want || all[0].ContextMap()["domain"] != "a.example" {
					t.Errorf("kind %d, on demand %v: %v", kind, onDemand, all)
				}
			})
		}
	}
}

// A zone that cannot be looked into every other minute uses up nobody else's lines: why its domain waits is
// logged as often as other news.
func TestFlappingZoneLogsLittle(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		o := w.configure("a", "a.test")
		defer w.end(o)
		w.again(t, o, missing("a.test", "v"))
		time.Sleep(time.Minute)
		w.logs.TakeAll()
		for i := range 40 {
			w.show(o, "a.test", []propagation.Status{propagation.StatusBlocked, propagation.StatusAbsent}[i%2])
			time.Sleep(time.Minute)
		}
		if n := w.logs.FilterMessage(waitText).Len(); n == 0 || n > newsMost {
			t.Errorf("it is logged %d times why it waits", n)
		}
		if n := w.logs.FilterMessageSnippet("keeps changing").Len(); n != 1 {
			t.Errorf("it is logged %d times that no more is logged", n)
		}
		if n := len(w.digests); w.digests[matter{acmepersist.ReasonWrong, false}] != nil {
			t.Errorf("of %d matters one is a wrong record", n)
		}
	})
}
