//go:build unix

package realdns

import (
	"fmt"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
)

const example = "example.test"

// The numbers are those of docs/scenarios.md.

// Knot is the secondary of BIND and is not told of changes: the record is on the primary
// only until the next refresh.
func TestScenario04StaleSecondary(t *testing.T) {
	bind := BIND(t, Zone{Origin: example, Text: ns(example, 1, 2)})
	knot := Knot(t, Zone{Origin: example, Primary: bind})
	w := newWorld(t, Unbound(t, map[string][]*Server{example: {bind, knot}}), bind, knot)
	g := gate()
	w.wait(g, propagation.StatusAbsent)
	bind.Update(example, add)
	rep := w.wait(g, propagation.StatusPartial)
	hasCode(t, rep, propagation.CodePartial)
	for _, part := range []string{"ns2.example.test", "serial 1"} {
		if !strings.Contains(rep.Summary(), part) {
			t.Errorf("%q lacks %q", rep.Summary(), part)
		}
	}
	knot.Control("zone-refresh", example)
	w.ready(g)
}

// The other way round, with NOTIFY and IXFR, as it should be.
func TestScenario03Notify(t *testing.T) {
	second := newServer(t) // only its port is needed to begin with
	knot := Knot(t, Zone{Origin: example, Text: ns(example, 1, 2), Notify: second})
	bind := bindAt(t, second.Port, Zone{Origin: example, Primary: knot})
	w := newWorld(t, Unbound(t, map[string][]*Server{example: {bind, knot}}), knot, bind)
	g := gate()
	w.wait(g, propagation.StatusAbsent)
	knot.Update(example, add)
	w.ready(g)
}

// A secondary whose primary is gone for longer than the zone's expire time fails.
func TestScenario07ExpiredZone(t *testing.T) {
	knot := Knot(t, Zone{Origin: example, Text: ns(example, 1, 2), SOA: "1 1 3 5"})
	bind := BIND(t, Zone{Origin: example, Primary: knot})
	other := Knot(t, Zone{Origin: example, Text: ns(example, 1, 2) + name + ". TXT \"" + value + "\"\n"})
	w := newWorld(t, Unbound(t, map[string][]*Server{example: {bind, other}}), other, bind)
	knot.Stop()
	Eventually(t, "the zone to expire", func() error {
		answer, err := bind.Query(example, dns.TypeSOA)
		if err == nil && answer.Rcode != dns.RcodeServerFailure {
			err = fmt.Errorf("%s", dns.RcodeToString[answer.Rcode])
		}
		return err
	})
	rep := w.ready(gate())
	hasCode(t, rep, propagation.CodeServfail, propagation.CodeReady)
}

// A server that is listed but not configured refuses: BIND and Knot.
func TestScenario08ZoneNotConfigured(t *testing.T) {
	for _, lame := range []string{"BIND", "Knot"} {
		t.Run(lame, func(t *testing.T) {
			bind := BIND(t, Zone{Origin: example, Text: ns(example, 1, 2) + name + ". TXT \"" + value + "\"\n"})
			start := Knot
			if lame == "BIND" {
				start = BIND
			}
			other := start(t, Zone{Origin: "other.test", Text: ns("other.test", 1)})
			w := newWorld(t, Unbound(t, map[string][]*Server{example: {bind, other}}), bind, other)
			hasCode(t, w.ready(gate()), propagation.CodeLame)
		})
	}
}

// A server that is there but says nothing, and one whose port is closed.
func TestScenario0910Silent(t *testing.T) {
	bind := BIND(t, Zone{Origin: example, Text: ns(example, 1, 2) + name + ". TXT \"" + value + "\"\n"})
	knot := Knot(t, Zone{Origin: example, Primary: bind})
	w := newWorld(t, Unbound(t, map[string][]*Server{example: {bind, knot}}), bind, knot)
	Eventually(t, "the transfer", func() error {
		answer, err := knot.Query(name, dns.TypeTXT)
		if err == nil && len(answer.Answer) == 0 {
			err = fmt.Errorf("no record")
		}
		return err
	})
	knot.Pause()
	hasCode(t, w.ready(gate()), propagation.CodeUnreachable)
	knot.Stop()
	hasCode(t, w.ready(gate()), propagation.CodeUnreachable)
}

// The validation name is a zone of its own, on another make of server.
func TestScenario19DelegatedName(t *testing.T) {
	knot := Knot(t, Zone{Origin: name, Text: "@ NS ns2.example.test.\n"})
	bind := BIND(t, Zone{Origin: example, Text: ns(example, 1) + "ns2 A 192.0.2.2\n" + name + ". NS ns2\n"})
	w := newWorld(t, Unbound(t, map[string][]*Server{example: {bind}, name: {knot}}), bind, knot)
	g := gate()
	w.wait(g, propagation.StatusAbsent)
	knot.Update(name, add)
	w.ready(g)
}

// A CNAME leads into another zone, on another make of server, of which one is late.
func TestScenario212223Alias(t *testing.T) {
	const tenants = "tenants.test"
	knot := Knot(t, Zone{Origin: tenants, Text: ns(tenants, 2, 3)})
	second := BIND(t, Zone{Origin: tenants, Primary: knot})
	bind := BIND(t, Zone{Origin: example, Text: ns(example, 1) + name + ". CNAME t1.tenants.test.\n"})
	w := newWorld(t, Unbound(t, map[string][]*Server{example: {bind}, tenants: {knot, second}}), bind, knot, second)
	g := gate()
	w.wait(g, propagation.StatusAbsent)
	knot.Update(tenants, "add t1.tenants.test. 60 TXT \""+value+"\"")
	hasCode(t, w.wait(g, propagation.StatusPartial), propagation.CodeAlias, propagation.CodePartial)
	second.refresh(tenants, knot)
	w.ready(g)
}

// BIND answers a loop of CNAMEs with SERVFAIL or the records, Knot with the records.
func TestScenario24AliasLoop(t *testing.T) {
	for make, start := range map[string]func(testing.TB, ...Zone) *Server{"BIND": BIND, "Knot": Knot} {
		t.Run(make, func(t *testing.T) {
			s := start(t, Zone{Origin: example, Text: ns(example, 1) + name + ". CNAME a\na CNAME " + name + ".\n"})
			w := newWorld(t, Unbound(t, map[string][]*Server{example: {s}}), s)
			rep := w.wait(gate(), propagation.StatusBlocked)
			if make == "Knot" {
				hasCode(t, rep, propagation.CodeAliasLoop)
			}
		})
	}
}

// A wildcard TXT answers until the exact record is there.
func TestScenario2728Wildcard(t *testing.T) {
	for make, start := range map[string]func(testing.TB, ...Zone) *Server{"BIND": BIND, "Knot": Knot} {
		t.Run(make, func(t *testing.T) {
			s := start(t, Zone{Origin: example, Text: ns(example, 1) + "* TXT \"v=spf1 -all\"\n"})
			w := newWorld(t, Unbound(t, map[string][]*Server{example: {s}}), s)
			g := gate()
			w.wait(g, propagation.StatusAbsent)
			s.Update(example, add)
			w.ready(g)
		})
	}
}

// Ninety TXT records do not fit into a datagram; BIND loads no zone with more than a hundred.
func TestScenario39ManyRecords(t *testing.T) {
	text := ns(example, 1, 2) + name + ". TXT \"" + value + "\"\n"
	for i := range 90 {
		text += fmt.Sprintf("%s. TXT \"other%d.example; accounturi=https://other%d.example/account\"\n", name, i, i)
	}
	bind := BIND(t, Zone{Origin: example, Text: text})
	knot := Knot(t, Zone{Origin: example, Text: text})
	w := newWorld(t, Unbound(t, map[string][]*Server{example: {bind, knot}}), bind, knot)
	rep := w.ready(gate())
	for _, s := range rep.Servers {
		if s.Network != "tcp" || len(s.Values) != 91 {
			t.Errorf("%s answered %d values over %s", s.Host, len(s.Values), s.Network)
		}
	}
}

// BIND answers in the letters of the zone, not of the question.
func TestScenario43Case(t *testing.T) {
	bind := BIND(t, Zone{Origin: example, Text: ns(example, 1) + "_Validation-Persist.WWW TXT \"" + value + "\"\n"})
	w := newWorld(t, Unbound(t, map[string][]*Server{example: {bind}}), bind)
	w.ready(gate())
}

// The record is taken away before the second look: it is not ready.
func TestScenario51Vanishes(t *testing.T) {
	bind := BIND(t, Zone{Origin: example, Text: ns(example, 1)})
	w := newWorld(t, Unbound(t, map[string][]*Server{example: {bind}}), bind)
	g := gate()
	w.wait(g, propagation.StatusAbsent)
	bind.Update(example, add)
	w.wait(g, propagation.StatusConfirming)
	bind.Update(example, "delete "+name+". TXT")
	w.wait(g, propagation.StatusAbsent)
	bind.Update(example, add)
	w.ready(g)
}

// A signed zone that validates, and one that does not: CAs refuse it.
func TestScenario4647DNSSEC(t *testing.T) {
	knot := Knot(t, Zone{Origin: example, Text: ns(example, 2), Signed: true})
	ds := dsOf(t, knot)
	parent := BIND(t, Zone{Origin: "test", Text: ns("test", 1) + "example NS ns2.example\nns2.example A 192.0.2.2\n" + ds + "\n"})
	for state, anchor := range map[string]string{"good": ds, "bogus": breakDS(ds)} {
		t.Run(state, func(t *testing.T) {
			w := newWorld(t, Unbound(t, map[string][]*Server{"test": {parent}, example: {knot}}, anchor), parent, knot)
			g := gate()
			knot.Update(example, add)
			if state == "good" {
				w.ready(g)
				return
			}
			hasCode(t, w.wait(g, propagation.StatusBlocked), propagation.CodeBogus)
			if err := w.oracle.Fresh(name, value, 1); err == nil {
				t.Error("the resolver takes the bogus zone")
			}
		})
	}
}
