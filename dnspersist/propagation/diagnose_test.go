package propagation

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/miekg/dns"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

func TestDiagnose(t *testing.T) {
	const good = ` TXT "` + wantedValue + `"` + "\n"
	for _, tt := range []struct {
		name string
		zone string
		want Code
		text string // in the diagnostic
	}{
		{"49 the zone's name twice", without + validationName + ".example.test." + good, CodeWrongName, "twice"},
		{"49 without underscore", without + "validation-persist.www.example.test." + good, CodeWrongName, "underscore"},
		{"49 without underscore, another value", without + "validation-persist.www.example.test. TXT x\n", CodeWrongName, "underscore"},
		{"49 at the host", without + "www.example.test." + good, CodeWrongName, "label"},
		{"49 other text at the host", without + "www.example.test. TXT x\n", "", ""},
		{"49 at the name of dns-01", without + "_acme-challenge.www.example.test." + good, CodeWrongName, "dns-01"},
		{"49 with the label misspelled", without + "_validation-presist.www.example.test." + good, CodeWrongName, "misspelled"},
		{"49 with an underscore in the label", without + "_validation_persist.www.example.test." + good, CodeWrongName, "underscore in place"},
		{"49 with the star", without + "_validation-persist.*.www.example.test." + good, CodeWrongName, "star"},
		{"49 at www", without + "_validation-persist.www.www.example.test." + good, CodeWrongName, "www.www"},
		{"49 at the domain", without + "_validation-persist.example.test." + good, CodeWrongName, "domain itself"},
		{"01 in its place", withRecord + "www.example.test." + good, "", ""},
		{"02 nowhere", without, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := &hookNet{memNet: newMemNet(t)}
				n.servers["192.0.2.1:53"].load(t, tt.zone)
				n.servers["192.0.2.2:53"].load(t, tt.zone)
				looked := target
				looked.Mistaken = mistaken
				_, all := n.checker().Diagnose(t.Context(), looked)
				i := slices.IndexFunc(all, func(d Diagnostic) bool { return d.Code == CodeWrongName })
				if (i >= 0) != (tt.want != "") || i >= 0 && !strings.Contains(all[i].Text, tt.text) {
					t.Errorf("diagnostics %+v", all)
				}
				if got := n.questions("192.0.2.53:53 _"); got > 0 {
					t.Errorf("%d questions for the name to a resolver", got)
				}
				if got := n.questions("192.0.2.1:53") + n.questions("192.0.2.2:53"); got > 26 {
					t.Errorf("%d questions", got)
				}
			})
		})
	}
}

// mistaken is what the core gives a target.
func mistaken(zone string) (places []Place) {
	for _, m := range record.Misplacements("www.example.test", zone) {
		places = append(places, Place(m))
	}
	return places
}

// Whatever a wildcard answers was not put where it answers.
func TestDiagnoseBelowWildcard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &hookNet{memNet: newMemNet(t)}
		n.hook = func(_, addr string, q *dns.Msg) (*dns.Msg, error, bool) {
			if q.Question[0].Qtype != dns.TypeTXT || addr == "192.0.2.53:53" {
				return nil, nil, false
			}
			m := new(dns.Msg).SetReply(q)
			m.Authoritative = true
			rr, err := dns.NewRR(q.Question[0].Name + ` 60 TXT "v=spf1 -all"`)
			m.Answer = []dns.RR{rr}
			return m, err, true
		}
		looked := target
		looked.Mistaken = mistaken
		_, all := n.checker().Diagnose(t.Context(), looked)
		if slices.ContainsFunc(all, func(d Diagnostic) bool { return d.Code == CodeWrongName }) {
			t.Errorf("a wildcard is taken for a record in the wrong place: %+v", all)
		}
	})
}

// The host's address comes from a wildcard, or is its own and happens to be the same.
func TestScenario29WildcardWillBreak(t *testing.T) {
	for _, own := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			n := &hookNet{memNet: newMemNet(t)}
			n.hook = func(_, addr string, q *dns.Msg) (*dns.Msg, error, bool) {
				name := q.Question[0].Name
				if q.Question[0].Qtype == dns.TypeTXT && addr != "192.0.2.53:53" && name == validationName+"." {
					m := new(dns.Msg).SetReply(q) // the wildcard has no text
					m.Authoritative = true
					soa, err := dns.NewRR(soaRecord)
					m.Ns = []dns.RR{soa}
					return m, err, true
				}
				if q.Question[0].Qtype != dns.TypeA || addr == "192.0.2.53:53" || own && strings.HasSuffix(name, ".www.example.test.") {
					return nil, nil, false
				}
				m := new(dns.Msg).SetReply(q)
				m.Authoritative = true
				rr, err := dns.NewRR(name + " 60 A 192.0.2.80")
				m.Answer = []dns.RR{rr}
				return m, err, true
			}
			_, all := n.checker().Diagnose(t.Context(), target)
			if got := slices.ContainsFunc(all, func(d Diagnostic) bool { return d.Code == CodeWildcardBreaks }); got == own {
				t.Errorf("own %v: %+v", own, all)
			}
		})
	}
}

// Advice to sign a zone is for those that are known not to be signed.
func TestUnsignedZone(t *testing.T) {
	for _, signed := range []bool{false, true} {
		w := newWorld(t, withRecord, withRecord)
		if signed {
			w.resolver.load(t, soaRecord+exampleNS+"example.test. DS 1 13 2 "+strings.Repeat("00", 32)+"\n"+validationName+`. TXT "`+wantedValue+`"`+"\n")
		}
		_, found := w.checker().Diagnose(t.Context(), target)
		if advised := slices.ContainsFunc(found, func(d Diagnostic) bool { return d.Code == CodeUnsigned }); advised == signed {
			t.Errorf("signed %v: %+v", signed, found)
		}
	}
}
