package propagation

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/miekg/dns"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation/internal/ask"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation/internal/zones"
)

// fuzzedName is what the answers in this file are about.
const fuzzedName = "_validation-persist.www.example.test."

// fuzzedAnswers are the wire forms that fuzzing begins with.
func fuzzedAnswers(f *testing.F) (wires [][]byte) {
	f.Helper()
	for _, a := range []struct {
		answer, authority []string
		more              func(*dns.Msg)
	}{
		{answer: []string{fuzzedName + ` 60 TXT "ok" "b\"\\\200"`, fuzzedName + ` 60 TXT "other"`}},
		{answer: []string{fuzzedName + ` 60 CNAME v.other.test.`, `v.other.test. 60 TXT "ok"`}},
		{answer: []string{`www.example.test. 60 CAA 128 issue "ca.example; accounturi=https://ca.test/1"`}},
		{answer: []string{`www.example.test. 60 CNAME h.other.test.`, `h.other.test. 60 CAA 0 issuewild ";"`}},
		{authority: []string{`example.TEST. 60 SOA ns. h. 7 1 1 1 60`}, more: func(m *dns.Msg) { m.Rcode = dns.RcodeNameError }},
		{authority: []string{`www.example.test. 60 NS a.test.`, `www.example.test. 60 NS b.test.`}, more: func(m *dns.Msg) {
			m.Authoritative, m.Extra = false, rrs("a.test. 60 A 192.0.2.1", "b.test. 60 AAAA ::ffff:192.0.2.1")
		}},
		{authority: []string{`test. 60 NS a.test.`}, more: func(m *dns.Msg) { m.Authoritative = false }},
		{more: func(m *dns.Msg) { m.Authoritative, m.RecursionAvailable = false, true }},
		{more: func(m *dns.Msg) {
			m.Rcode = dns.RcodeServerFailure
			m.SetEdns0(ask.UDPSize, false)
			m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_EDE{InfoCode: 6, ExtraText: "a\x1b[31m text"}}
		}},
	} {
		m := new(dns.Msg).SetReply(new(dns.Msg).SetQuestion(fuzzedName, dns.TypeTXT))
		m.Id, m.Authoritative = 1, true
		m.Answer, m.Ns = rrs(a.answer...), rrs(a.authority...)
		if a.more != nil {
			a.more(m)
		}
		wire, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		wires = append(wires, wire)
	}
	return wires
}

// FuzzClassify judges any message that a server or a resolver may send.
func FuzzClassify(f *testing.F) {
	for _, wire := range fuzzedAnswers(f) {
		f.Add(wire)
	}
	isWanted := func(v string) bool { return strings.HasPrefix(v, "ok") }
	weigh := func(v string) int {
		if isWanted(v) {
			return WeightRecord
		}
		return len(v) % 2
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		m := new(dns.Msg)
		if m.Unpack(wire) != nil {
			return
		}
		var judged []string
		accept := func(values []string) (bool, string) {
			judged = values
			return slices.ContainsFunc(values, isWanted), ""
		}
		for _, zone := range []string{".", "test.", "example.test.", "www.example.test.", fuzzedName} {
			judged = nil
			o := classify(zone, fuzzedName, m, accept)
			checkOutcome(t, o, len(wire), judged)
			if o.deeper != "" && (!zones.IsBelow(o.deeper, zone) || !dns.IsSubDomain(o.deeper, fuzzedName) || o.Verdict == VerdictYes) {
				t.Errorf("a zone cut at %q, below %q, with the verdict %q", o.deeper, zone, o.Verdict)
			}
			if len(o.hosts) > 0 && o.deeper == "" || len(o.hosts) > 32 {
				t.Errorf("%d hosts of the zone %q", len(o.hosts), o.deeper)
			}
			if want := slices.ContainsFunc(judged, isWanted) || o.Alias != ""; (o.Verdict == VerdictYes) != want {
				t.Errorf("verdict %q on the values %q and the alias %q", o.Verdict, judged, o.Alias)
			}
		}
		judged = nil
		checkOutcome(t, classifyRecursive(fuzzedName, m, accept), len(wire), judged)

		judged = nil
		o := classify("test.", fuzzedName, m, accept)
		g := NewGate(1, 1)
		g.Observe(Round{Name: zones.Display(fuzzedName), When: gateStart, Servers: []ServerReport{o.ServerReport}, weigh: weigh})
		kept := g.Report()
		size := 0
		for _, v := range kept.Values {
			size += len(v)
		}
		if size > maxKeptValues || len(kept.Values) > maxKeptCount || len(kept.Reason) > maxKeptReason {
			t.Errorf("%d octets of %d values are kept", size, len(kept.Values))
		}
		if slices.ContainsFunc(judged, isWanted) && !slices.ContainsFunc(kept.Values, isWanted) {
			t.Errorf("the value that is wanted was dropped, of %d", len(judged))
		}
	})
}

// checkOutcome checks what holds whoever was asked. judged are the values that were judged.
func checkOutcome(t *testing.T, o outcome, wire int, judged []string) {
	t.Helper()
	switch o.Verdict {
	case VerdictYes, VerdictNo, VerdictBroken, VerdictSilent:
	default:
		t.Errorf("verdict %q", o.Verdict)
	}
	if o.Verdict != VerdictYes && o.Reason == "" {
		t.Errorf("no reason for %q", o.Verdict)
	}
	if !slices.Equal(o.Values, judged) {
		t.Errorf("%q were judged of %q", judged, o.Values)
	}
	if size := len(strings.Join(o.Values, "")); size > wire {
		t.Errorf("%d octets of text in a message of %d", size, wire)
	}
	if len(o.Rcode) > 1000 || strings.ContainsFunc(o.Rcode, unicode.IsControl) {
		t.Errorf("rcode %q", o.Rcode)
	}
}

// FuzzCAA has resolvers answer anything to the question for CAA records.
func FuzzCAA(f *testing.F) {
	for _, wire := range fuzzedAnswers(f) {
		f.Add(wire)
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		if new(dns.Msg).Unpack(wire) != nil {
			return
		}
		n := &wireNet{wire: wire}
		c := NewChecker(Config{Resolvers: []string{"192.0.2.53"}, Exchanger: n})
		records, at, err := c.CAA(t.Context(), "www.Example.test", time.Now())
		if (len(records) > 0) != (at != "") || err != nil && at != "" {
			t.Errorf("%d records at %q, error %v", len(records), at, err)
		}
		if at != "" && !slices.Contains([]string{"www.example.test", "example.test", "test"}, at) {
			t.Errorf("records at %q", at)
		}
		// each of three names over both networks, with EDNS and without, and once more where
		// DNSSEC may be at fault
		if n.asked > 3*12 {
			t.Errorf("%d questions", n.asked)
		}
		if err != nil && strings.ContainsFunc(err.Error(), unicode.IsControl) {
			t.Errorf("error %q", err)
		}
	})
}

// wireNet answers every question with the same octets.
type wireNet struct {
	wire  []byte
	asked int
}

func (n *wireNet) Exchange(_ context.Context, _, _ string, query *dns.Msg) (*dns.Msg, error) {
	n.asked++
	m := new(dns.Msg)
	if err := m.Unpack(n.wire); err != nil {
		return nil, err
	}
	m.Id, m.Response, m.Opcode, m.Question = query.Id, true, query.Opcode, query.Question
	return m, nil
}
