package acmepersist

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
)

// dialects are those of the drafts, as a directory and a challenge show them.
var dialects = map[string]struct{ meta, members string }{
	"00": {`"caaIdentities":["ca.test"]`, `"issuer-domain-names":["ca.test"]`},
	"01": {`"caaIdentities":["ca.test"]`, `"issuer-domain-names":["ca.test"],"accounturi":"` + fakeAccount + `"`},
	"02": {`"caaIdentities":["ca.test"],` + whole, hashed},
}

// questions are those since the last call at the validation name and for CAA, as one text.
func (r *trial) questions() string {
	asked := r.dns.taken()
	var all []string
	for _, q := range slices.Sorted(maps.Keys(asked)) {
		if strings.HasPrefix(q, "CAA ") || strings.HasSuffix(q, " "+wwwName) {
			all = append(all, fmt.Sprint(asked[q], " ", q))
		}
	}
	return strings.Join(all, ", ")
}

// A renewal asks each of three server addresses once: what the CA has accepted before, and all servers show, needs
// no second look, in whichever dialect. Nothing of that holds for a first certificate, or a changed record. CAA
// records are asked for once a label, and within their TTL not again.
func TestQuestionsOfARenewal(t *testing.T) {
	const (
		once, twice = "3 TXT " + wwwName, "6 TXT " + wwwName
		cut         = "1 SOA " + wwwName + ", "
		caa         = "1 CAA example.test, 1 CAA test, 1 CAA www.example.test, "
	)
	for draft, dialect := range dialects {
		t.Run(draft, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newTrial(t)
				r.dns.shown = append(r.dns.shown, map[string][]string{})
				r.ca.meta, r.ca.members = dialect.meta, dialect.members
				if _, err := r.Account(t.Context()); err != nil {
					t.Fatal(err)
				}
				wanted, err := r.Wanted(t.Context(), []string{"www.example.test"})
				if err != nil {
					t.Fatal(err)
				}
				value := wanted[0].Value
				changed := value + "; persistUntil=9000000000"
				for _, look := range []struct {
					what, published string
					later           time.Duration
					want            string
				}{
					{"the first certificate", value, 0, caa + cut + twice},
					{"a renewal", value, 0, once},
					{"a renewal after the TTL of CAA", value, 61 * time.Second, caa + once},
					{"a renewal by a changed record", changed, 0, twice},
					{"the one after it", changed, 0, once},
				} {
					time.Sleep(look.later)
					r.dns.set(wwwName, look.published)
					r.succeeds()
					if got := r.questions(); got != look.want {
						t.Errorf("%s asks %s, want %s", look.what, got, look.want)
					}
				}
				r.Config.Checker = propagation.NewChecker(propagation.Config{Resolvers: []string{"192.0.2.53"}, Exchanger: &struct{ *fakeDNS }{r.dns}})
				r.Issuer = New(r.Config) // a process that knows nothing of DNS
				r.succeeds()
				if got := r.questions(); got != caa+cut+once {
					t.Errorf("cold it asks %s", got)
				}
			})
		})
	}
}

// Names of one zone share what is known of CAA records.
func TestCAAOfASharedLabelIsAskedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrial(t)
		r.knowsTheCA()
		r.dns.taken()
		r.dns.set(wwwName, wwwValue)
		r.succeeds()
		asked := r.dns.taken()
		if asked["CAA www.example.test"] != 1 || asked["CAA example.test"] != 0 || asked["CAA test"] != 0 {
			t.Errorf("the second name asks %v", asked)
		}
	})
}

// CAA records that forbid a certificate are looked for anew by each attempt, and by each check: somebody may
// have corrected them. So are those that were kept when the CA has refused.
func TestCAAIsAskedAnewWhereItMatters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrial(t, func(c *Config) { c.CacheCap = -1 })
		r.knowsTheCA()
		r.dns.set(wwwName, wwwValue)
		r.dns.add(`example.test. 3600 IN CAA 0 issue "other.test"`)
		time.Sleep(61 * time.Second)
		r.holds(ReasonCAA)
		time.Sleep(time.Second)
		r.dns.more = nil
		r.dns.taken()
		r.succeeds()
		if got := r.dns.taken(); got["CAA example.test"] != 1 {
			t.Errorf("an attempt after they forbade it asks %v", got)
		}

		time.Sleep(time.Second)
		checks, err := r.Checks(t.Context(), []string{"www.example.test"})
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range checks {
			c.Look(t.Context(), false)
		}
		if got := r.dns.taken(); got["CAA example.test"] != 1 {
			t.Errorf("a check asks %v", got)
		}

		time.Sleep(time.Second)
		r.ca.verdict = "caa"
		r.holds(ReasonRejected)
		r.dns.taken()
		r.ca.verdict = "valid"
		time.Sleep(time.Second)
		r.succeeds()
		if got := r.dns.taken(); got["CAA example.test"] != 1 {
			t.Errorf("an attempt after a refusal asks %v", got)
		}

		time.Sleep(time.Second)
		r.ca.asking = func(step string) {
			if step == "finalize" {
				r.ca.orders[len(r.ca.orders)-1].status = "invalid"
				r.ca.asking = nil
			}
		}
		r.ca.answer("finalize", answer{status: 403, problem: "caa"}) // some look again then
		r.fails()
		r.dns.taken()
		time.Sleep(time.Second)
		r.succeeds()
		if got := r.dns.taken(); got["CAA example.test"] != 1 {
			t.Errorf("an attempt after a refusal to finalize asks %v", got)
		}
	})
}
