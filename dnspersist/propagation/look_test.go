package propagation

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
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
		r := c.round(t.Context(), target, n, nil)
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

// mapExchanger cannot be compared, as little as many a caller's own.
type mapExchanger struct{ seen map[string]bool }

func (m mapExchanger) Exchange(_ context.Context, _, addr string, _ *dns.Msg) (*dns.Msg, error) {
	return nil, context.DeadlineExceeded
}

func TestExchangerThatCannotBeCompared(t *testing.T) {
	c := NewChecker(Config{Exchanger: mapExchanger{map[string]bool{}}, Resolvers: []string{"192.0.2.53"}})
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	round := c.Look(ctx, Target{Name: "_validation-persist.example.com", Host: "example.com"})
	if round.Err == nil {
		t.Error("a look that nobody answers has no error")
	}
}

// A deadline that ends while servers are asked is no fault of theirs: what is known stays
// known, and a first look says that it is incomplete.
func TestCheckDeadline(t *testing.T) {
	t.Parallel()
	for _, mode := range []Mode{ModeAuthoritative, ModeRecursive} {
		for _, known := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				n := newMemNet(t)
				n.publish(t, "192.0.2.1")
				c := NewChecker(Config{Mode: mode, Resolvers: []string{"192.0.2.53"}, Exchanger: n})
				g := c.NewGate()
				before := g.Report()
				c.Look(t.Context(), target) // the zone is known
				if known {
					before = c.Check(t.Context(), target, g)
					time.Sleep(time.Hour)
					c.Look(t.Context(), target)
				}
				n.latency = 200 * time.Millisecond
				ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
				defer cancel()
				rep := c.Check(ctx, target, g)
				codes := rep.Codes()
				if slices.Contains(codes, CodeUnreachable) || slices.Contains(codes, CodePort53Blocked) {
					t.Errorf("%s, known %v: servers are blamed: %v", mode, known, codes)
				}
				if known && !rep.When.Equal(before.When) {
					t.Errorf("%s: the look that was cut short counts: %s", mode, rep.Summary())
				}
				if !known && (rep.Status != StatusBlocked || rep.Problem != CodeNotAsked) {
					t.Errorf("%s: %s %v", mode, rep.Summary(), codes)
				}
			})
		}
	}
}
