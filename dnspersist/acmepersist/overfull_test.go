package acmepersist

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/certmagic"
	"github.com/miekg/dns"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/publish"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/site"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

// overfull is a zone of two servers that show 60 values of 900 octets each, all different, and one
// that both have.
type overfull struct{ value string }

func (n *overfull) Exchange(_ context.Context, _, addr string, query *dns.Msg) (*dns.Msg, error) {
	q := query.Question[0]
	m := new(dns.Msg).SetReply(query)
	m.Authoritative = !query.RecursionDesired
	hdr := func(rrtype uint16) dns.RR_Header {
		return dns.RR_Header{Name: q.Name, Rrtype: rrtype, Class: dns.ClassINET, Ttl: 300}
	}
	switch {
	case query.RecursionDesired && q.Qtype == dns.TypeNS:
		m.Answer = []dns.RR{&dns.NS{Hdr: hdr(q.Qtype), Ns: "n1.full.test."}, &dns.NS{Hdr: hdr(q.Qtype), Ns: "n2.full.test."}}
	case query.RecursionDesired && q.Qtype == dns.TypeA && q.Name[0] == 'n':
		m.Answer = []dns.RR{&dns.A{Hdr: hdr(q.Qtype), A: []byte{192, 0, 2, q.Name[1] - '0'}}}
	case q.Qtype == dns.TypeTXT:
		for i := range 60 {
			part := strings.Repeat(fmt.Sprintf("%s %02d ", addr, i), 20)[:225]
			m.Answer = append(m.Answer, &dns.TXT{Hdr: hdr(q.Qtype), Txt: []string{part, part, part, part}})
		}
		m.Answer = append(m.Answer, &dns.TXT{Hdr: hdr(q.Qtype), Txt: []string{n.value}})
	default:
		soa := dns.RR_Header{Name: "full.test.", Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: 300}
		m.Ns = []dns.RR{&dns.SOA{Hdr: soa, Ns: "n1.full.test.", Mbox: "h.full.test.", Serial: 1, Minttl: 60}}
	}
	return m, nil
}

// A name with more values than are handled is judged all the same, but nobody writes all of
// them again, for some would be lost.
func TestOverfullName(t *testing.T) {
	want := record.Requirement{IssuerDomainNames: []string{"ca.example"}, AccountURI: "https://ca.example/1"}
	n := &overfull{value: "ca.example; accounturi=https://ca.example/1"}
	checker := propagation.NewChecker(propagation.Config{Resolvers: []string{"192.0.2.53"}, Exchanger: n})
	target := propagation.Target{
		Name: "_validation-persist.full.test", Host: "full.test", Weigh: site.Weigh(want),
		Accept: func(values []string) (bool, string) { return slices.Contains(values, n.value), "" },
	}
	gate := checker.NewGate()
	rep := checker.Check(t.Context(), target, gate)
	if rep.Status != propagation.StatusReady || len(rep.Values) != 121 {
		t.Errorf("%s, %d values", rep.Summary(), len(rep.Values))
	}
	if kept := gate.Report(); kept.Status != propagation.StatusReady || !slices.Contains(kept.Values, n.value) || kept.MoreValues == 0 {
		t.Errorf("kept are %d values, without the one that is wanted: %.100q", len(kept.Values), kept.Values)
	}
	keeper := publish.Keeper{Checker: checker, Options: new(Publishing), Store: state.New(&certmagic.FileStorage{Path: t.TempDir()}, "https://ca.example"), Process: new(publish.Process)}
	_, err := keeper.For(publish.Identity{}).Put(t.Context(), publish.Write{At: target})
	if err == nil || !strings.Contains(err.Error(), "121 different TXT values") {
		t.Errorf("a writer would work with it: %v", err)
	}
	// what is left out is known to everybody who works with a report
	for _, r := range []propagation.Report{rep, gate.Report()} {
		if r.Whole() == nil {
			t.Error("a shortened set counts as whole")
		}
	}
}
