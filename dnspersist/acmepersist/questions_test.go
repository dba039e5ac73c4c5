package acmepersist

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
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
// no second look, in whichever dialect. Nothing of that holds for a first certificate, or a changed record.
func TestQuestionsOfARenewal(t *testing.T) {
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
				for _, look := range []struct{ what, published, want string }{
					{"the first certificate", value, "6 TXT "},
					{"a renewal", value, "3 TXT "},
					{"a renewal by a changed record", value + "; persistUntil=9000000000", "6 TXT "},
					{"the one after it", value + "; persistUntil=9000000000", "3 TXT "},
				} {
					r.dns.set(wwwName, look.published)
					r.succeeds()
					if got := r.questions(); !strings.Contains(got, look.want+wwwName) {
						t.Errorf("%s asks %s, want %s", look.what, got, look.want)
					}
				}
			})
		})
	}
}
