package propagation

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/miekg/dns"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation/internal/zones"
)

// wildcards has the servers of example.test answer as RFC 4592 says: of what does not exist,
// from the wildcard below the closest name that does; a DNAME leads what is below it elsewhere.
func wildcards(n *hookNet, served map[string]string) {
	parsed := make(map[string][]dns.RR)
	for addr, text := range served {
		zp := dns.NewZoneParser(strings.NewReader(without+text), ".", "")
		zp.SetDefaultTTL(300)
		for rr, ok := zp.Next(); ok; rr, ok = zp.Next() {
			parsed[addr+":53"] = append(parsed[addr+":53"], rr)
		}
	}
	n.hook = func(_, addr string, q *dns.Msg) (*dns.Msg, error, bool) {
		name, rrs := dns.CanonicalName(q.Question[0].Name), parsed[addr]
		if rrs == nil || !dns.IsSubDomain("example.test.", name) {
			return nil, nil, false
		}
		exists := func(name string) bool {
			return slices.ContainsFunc(rrs, func(rr dns.RR) bool { return dns.IsSubDomain(name, dns.CanonicalName(rr.Header().Name)) })
		}
		m := new(dns.Msg).SetReply(q)
		m.Authoritative = true
		owner, encloser := name, name
		for !exists(encloser) {
			encloser = zones.Parent(encloser)
		}
		for _, rr := range rrs {
			if d, ok := rr.(*dns.DNAME); ok && zones.IsBelow(name, d.Hdr.Name) {
				cname, _ := dns.NewRR(name + " 300 CNAME " + strings.TrimSuffix(name, d.Hdr.Name) + d.Target)
				m.Answer = []dns.RR{rr, cname}
				return m, nil, true
			}
		}
		if encloser != name {
			owner = "*." + encloser
		}
		if !exists(owner) {
			m.Rcode = dns.RcodeNameError
		}
		for _, rr := range rrs {
			if dns.CanonicalName(rr.Header().Name) != owner {
				continue
			}
			if t := rr.Header().Rrtype; t == dns.TypeNS && owner != "example.test." {
				ns := dns.Copy(rr)
				ns.Header().Name, m.Authoritative, m.Ns = name, false, []dns.RR{ns}
				return m, nil, true
			} else if t == q.Question[0].Qtype || t == dns.TypeCNAME {
				made := dns.Copy(rr)
				made.Header().Name = name
				m.Answer = append(m.Answer, made)
			}
		}
		if len(m.Answer) == 0 {
			m.Ns = []dns.RR{rrs[0]}
		}
		return m, nil, true
	}
}

// An alias is decided once, by what all servers show and what wildcards make.
func TestAlias(t *testing.T) {
	const (
		vname  = validationName + "."
		text   = vname + ` TXT "` + wantedValue + "\"\n"
		inside = vname + " CNAME inside.example.test.\n"
		atEnd  = `inside.example.test. TXT "` + wantedValue + "\"\n"
	)
	// the host of exampleNS exists, so wildcards are below it
	for _, tt := range []struct {
		name, ns1, ns2 string
		kind           AliasKind
		place          string
		status         Status
		code           Code
		published      int // values
	}{
		{"none", "", "", AliasNone, validationName, StatusAbsent, CodeAbsent, 0},
		{"record", text, text, AliasNone, validationName, StatusReady, "", 1},
		{"set", inside, inside, AliasSet, "inside.example.test", StatusAbsent, CodeAliasDead, 0},
		{"set, with the record", inside + atEnd, inside + atEnd, AliasSet, "inside.example.test", StatusReady, CodeAlias, 1},
		{"on one server", inside + atEnd, atEnd, AliasNotAgreed, "", StatusPartial, CodeAliasNotAgreed, 0},
		{"beside a text", inside, text, AliasNotAgreed, "", StatusPartial, CodeAliasNotAgreed, 0},
		{"two targets", inside, vname + " CNAME b.example.test.\n", AliasNotAgreed, "", StatusAbsent, CodeAliasNotAgreed, 0},
		{"not agreed further on", inside + atEnd, inside + "inside.example.test. CNAME c.example.test.\n", AliasNotAgreed, "", StatusPartial, CodeAliasNotAgreed, 0},
		{"wildcard", "*.www.example.test. CNAME inside.example.test.\n", "*.www.example.test. CNAME inside.example.test.\n", AliasWildcard, validationName, StatusAbsent, CodeWildcard, 0},
		{"wildcard to the record", "*.www.example.test. CNAME inside.example.test.\n" + atEnd, "*.www.example.test. CNAME inside.example.test.\n" + atEnd, AliasWildcard, validationName, StatusReady, CodeAlias, 0},
		{"wildcard to nowhere", "*.www.example.test. CNAME nowhere.invalid.\n", "*.www.example.test. CNAME nowhere.invalid.\n", AliasWildcard, validationName, StatusAbsent, CodeWildcard, 0},
		{"wildcard to itself", "*.www.example.test. CNAME x.www.example.test.\n", "*.www.example.test. CNAME x.www.example.test.\n", AliasWildcard, validationName, StatusAbsent, CodeWildcard, 0},
		{"wildcard, the record on its way", "*.www.example.test. CNAME inside.example.test.\n" + text, "*.www.example.test. CNAME inside.example.test.\n", AliasWildcard, validationName, StatusPartial, CodePartial, 1},
		{"wildcard of one server, exact on another", "*.www.example.test. CNAME inside.example.test.\n", inside, AliasNotAgreed, "", StatusAbsent, CodeAliasNotAgreed, 0},
		{"wildcard behind an exact one", inside + "*.example.test. CNAME b.example.test.\n", inside + "*.example.test. CNAME b.example.test.\n", AliasSet, "inside.example.test", StatusAbsent, "", 0},
		{"exact beside a wildcard with the same target", "*.www.example.test. CNAME inside.example.test.\n" + inside, "*.www.example.test. CNAME inside.example.test.\n" + inside, AliasSet, "inside.example.test", StatusAbsent, "", 0},
		{"DNAME", "www.example.test. DNAME into.example.test.\n", "www.example.test. DNAME into.example.test.\n", AliasSet, "_validation-persist.into.example.test", StatusAbsent, "", 0},
		{"wildcard NS", "*.www.example.test. NS ns.elsewhere.test.\n", "*.www.example.test. NS ns.elsewhere.test.\n", AliasNone, validationName, StatusAbsent, CodeWildcard, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := &hookNet{memNet: newMemNet(t)}
				wildcards(n, map[string]string{"192.0.2.1": tt.ns1, "192.0.2.2": tt.ns2})
				c := n.checker()
				g := c.NewGate()
				rep := c.Check(t.Context(), target, g)
				if rep.Status != tt.status {
					t.Errorf("status %s, want %s: %s", rep.Status, tt.status, rep.Summary())
				}
				a := rep.Alias()
				place, err := a.Place()
				if a.Kind != tt.kind || place != tt.place || (err != nil) != (tt.place == "") {
					t.Errorf("%q at %q (%v), want %q at %q", a.Kind, place, err, tt.kind, tt.place)
				}
				if tt.code != "" && !slices.Contains(rep.Codes(), tt.code) {
					t.Errorf("codes %v lack %s", rep.Codes(), tt.code)
				}
				at, err := rep.Published()
				if (err != nil) != (tt.place == "") || len(at.Values) != tt.published {
					t.Errorf("published %v, %v", at.Values, err)
				}
				// it is not asked for at every look
				n.log = nil
				c.Look(t.Context(), target)
				if got := n.questions("." + validationName + "."); got > 0 {
					t.Errorf("%d questions for names below at the second look", got)
				}
			})
		})
	}
}

// A record below a host that lives from a wildcard takes its answers away: what is to be added
// before is reported, of names between as well.
func TestShadows(t *testing.T) {
	for _, tt := range []struct {
		name, zone, host string
		want             []string
	}{
		{
			"address", "*.home.example.test. 60 A 192.0.2.80\n*.home.example.test. 60 AAAA 2001:db8::80\n", "nas.home.example.test",
			[]string{"*.home.example.test stops answering A and AAAA", "first add nas.home.example.test. 60 IN A 192.0.2.80, nas.home.example.test. 60 IN AAAA 2001:db8::80"},
		},
		{
			"alias", "*.home.example.test. 60 CNAME box.dyn.test.\n", "nas.home.example.test",
			[]string{"*.home.example.test stops answering CNAME", "first add nas.home.example.test. 60 IN CNAME box.dyn.test."},
		},
		{
			"names between", "*.home.example.test. 60 A 192.0.2.80\n", "nas.attic.home.example.test",
			[]string{"*.home.example.test stops answering A", "nas.attic.home.example.test. 60 IN A", "*.attic.home.example.test. 60 IN A", ", attic.home.example.test. 60 IN A"},
		},
		{
			"names between, two addresses", "*.home.example.test. 60 A 192.0.2.80\n*.home.example.test. 60 A 192.0.2.81\n", "nas.attic.home.example.test",
			[]string{"the wildcard *.home.example.test stops", ", attic.home.example.test. 60 IN A 192.0.2.80", "*.attic.home.example.test. 60 IN A 192.0.2.81"},
		},
		{"a host of its own", "*.home.example.test. 60 A 192.0.2.80\nnas.home.example.test. 60 A 192.0.2.80\n", "nas.home.example.test", nil},
		{"a host and a wildcard of its own", "*.home.example.test. 60 A 192.0.2.80\nnas.home.example.test. 60 A 192.0.2.80\n*.nas.home.example.test. 60 A 192.0.2.80\n", "nas.home.example.test", nil},
		{"the zone itself", "*.example.test. 60 CNAME box.dyn.test.\n", "example.test", nil},
		{"no wildcard", "", "nas.home.example.test", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := &hookNet{memNet: newMemNet(t)}
				wildcards(n, map[string]string{"192.0.2.1": tt.zone, "192.0.2.2": tt.zone})
				c := n.checker()
				target := Target{Name: "_validation-persist." + tt.host, Accept: accept}
				rep := c.Check(t.Context(), target, c.NewGate())
				_, diagnosed := c.Diagnose(t.Context(), target)
				for _, all := range [][]Diagnostic{rep.Diagnostics(), diagnosed} {
					i := slices.IndexFunc(all, func(d Diagnostic) bool { return d.Code == CodeWildcardBreaks })
					if (i >= 0) != (tt.want != nil) {
						t.Fatalf("%+v", all)
					}
					for _, text := range tt.want {
						if !strings.Contains(all[i].Text, text) {
							t.Errorf("%q lacks %q", all[i].Text, text)
						}
					}
				}
				n.log = nil
				c.Look(t.Context(), target)
				if got := n.questions(""); got > 3 {
					t.Errorf("%d questions at a further look: %v", got, n.log)
				}
			})
		})
	}
}
