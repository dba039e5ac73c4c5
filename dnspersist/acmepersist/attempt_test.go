package acmepersist

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/ca"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
)

// whole is what a directory of draft -02 says, of which a record can be made before any order.
const whole = `"issuerDomainNames":["ca.test"],"accountHashPrefix":"https://ca.test/h/"`

// hashed are the members of a challenge of draft -02.
const hashed = `"issuerDomainNames":["ca.test"]`

func TestStepsOfAnAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrial(t)
		r.dns.set(wwwName, wwwValue)
		var phases []Phase
		if err := r.obtain(Request{Progress: func(p Phase) { phases = append(phases, p) }}); err != nil {
			t.Fatal(err)
		}
		// the first order teaches what the CA offers, and is the one that is gone on with
		r.asked("dir new-account new-order authz order authz challenge authz finalize certificate")
		if !slices.Equal(phases, []Phase{PhaseLooking, PhaseOrdering}) {
			t.Errorf("it reported %v", phases)
		}
		if n := r.name(); len(n.Accepted) != 1 || n.Accepted[0].Value != wwwValue || len(n.Attempts) != 0 {
			t.Errorf("after the CA's yes it remembers %+v", n)
		}
		if _, found := r.kept(); found {
			t.Error("the finished order is kept")
		}
		r.succeeds() // now that all is known
		r.asked("new-order authz challenge authz finalize certificate")
	})
}

func TestNoOrderBeforeTheRecordIsReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrial(t)
		r.ca.meta, r.ca.members = whole, hashed
		hold := r.holds(ReasonAbsent)
		r.asked("dir new-account account") // it is confirmed before anybody is shown a record that names it
		if hold.Record.Name != wwwName || !strings.HasPrefix(hold.Record.Value, "ca.test; accounturi=https://ca.test/h/") || !hold.Until.IsZero() {
			t.Errorf("it waits for %+v until %s", hold.Record, hold.Until)
		}
		if n := r.name(); len(n.Attempts) != 0 {
			t.Errorf("%d attempts are counted, and the CA was not asked", len(n.Attempts))
		}
		r.dns.setAt(0, wwwName, hold.Record.Value)
		r.holds(ReasonPartial)
		r.asked("")
		r.dns.set(wwwName, hold.Record.Value)
		r.succeeds()
		r.asked("new-order authz challenge authz finalize certificate")
	})
}

func TestNothingIsShownBeforeTheAccountIsConfirmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrial(t, func(c *Config) { c.Publishing = &Publishing{Mode: PublishOnce} })
		r.Publishing.Provider = r.dns
		r.knowsTheCA()
		r.ca.answer("account", answer{status: 403, problem: "unauthorized", detail: "deactivated"}, answer{status: 403, problem: "unauthorized"})
		r.Issuer = New(r.Config) // as after a restart
		r.isHold(r.fails(), ReasonAccount)
		if len(r.dns.at(wwwName)) > 0 {
			t.Error("the record was published although the CA does not know the account")
		}
		r.asked("dir account account")
	})
}

func TestAnAttemptIsCountedBeforeItIsPosted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrial(t)
		r.dns.set(wwwName, wwwValue)
		counted := -1
		r.ca.asking = func(step string) {
			if step == "challenge" {
				counted = len(r.name().Attempts)
			}
		}
		r.succeeds()
		if counted != 1 {
			t.Errorf("%d attempts are counted when the CA is asked to validate, want 1", counted)
		}
	})
}

func TestTheFirstOrderIsKeptWhileTheRecordIsMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrial(t)
		hold := r.holds(ReasonAbsent)
		r.asked("dir new-account new-order authz account")
		if kept, found := r.kept(); !found || !kept.PostedAt.IsZero() {
			t.Errorf("kept is %+v", kept)
		}
		if hold.Record.Value != wwwValue || hold.Account != fakeAccount || hold.CA != fakeDirectory || hold.Domain != "www.example.test" {
			t.Errorf("it waits for %+v", hold)
		}
		r.Issuer = New(r.Config)
		r.dns.set(wwwName, wwwValue)
		r.succeeds()
		r.asked("dir order authz challenge authz finalize certificate")
	})
}

func TestWhatAnotherNodeHasLearntIsNotAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrial(t)
		a, err := r.begin(t.Context(), r.csr, "www.example.test", Request{})
		if err != nil {
			t.Fatal(err)
		}
		if err := a.bindAccount(t.Context()); err != nil {
			t.Fatal(err)
		}
		other := *r
		other.Issuer = New(r.Config)
		other.knowsTheCA()
		if err := a.learnOffer(t.Context()); err != nil || a.facts.terms != termsShown {
			t.Errorf("known is %v, %v", a.facts.terms, err)
		}
		r.asked("")
	})
}

func TestADomainThatTheCAHasValidatedBeforeNeedsNoLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrial(t)
		r.ca.authz = "valid"
		r.succeeds()
		r.asked("dir new-account new-order authz order finalize certificate")
		if r.dns.looks > 0 || len(r.name().Attempts) > 0 {
			t.Errorf("DNS was asked %d times, %d attempts are counted", r.dns.looks, len(r.name().Attempts))
		}
	})
}

func TestWithoutACheckerTheCAIsAskedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrial(t, func(c *Config) { c.Checker = nil })
		r.knowsTheCA()
		r.Issuer = New(r.Config)
		r.succeeds()
		r.asked("dir account new-order authz challenge authz finalize certificate")
		if r.dns.looks > 0 {
			t.Errorf("DNS was asked %d times", r.dns.looks)
		}
	})
}

func TestAWatchThatHasSeenTheRecordSparesTheLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrial(t)
		r.knowsTheCA()
		hold := r.holds(ReasonAbsent)
		r.dns.set(wwwName, wwwValue)
		seen, err := hold.Wait(t.Context())
		if err != nil || seen.Status != propagation.StatusReady {
			t.Fatalf("the watch has seen %v, %v", seen, err)
		}
		looks := r.dns.looks
		if err := r.obtain(Request{Seen: seen}); err != nil || r.dns.looks != looks {
			t.Errorf("%v, after %d more looks", err, r.dns.looks-looks)
		}
	})
}

func TestACAThatDoesNotOfferTheChallenge(t *testing.T) {
	for _, row := range []struct {
		name  string
		knows bool // it did offer it
		left  time.Duration
		wait  time.Duration
		asked string
	}{
		{"first certificate", false, 0, 24 * time.Hour, "dir new-account new-order authz"},
		{"renewal", false, 30 * 24 * time.Hour, time.Hour, "dir new-account new-order authz"},
		{"it did offer it", true, 0, 24 * time.Hour, "new-order authz"},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newTrial(t)
				if row.left > 0 {
					r.hasCertificate(60*24*time.Hour, row.left)
				}
				if row.knows {
					r.knowsTheCA()
					r.dns.set(wwwName, wwwValue)
				}
				r.ca.members = ""
				r.holds(ReasonNotOffered)
				r.asked(row.asked)
				hold := r.holds(ReasonNotOffered)
				r.asked("")
				r.waits(hold, row.wait)
				var no *ca.NotOfferedError
				if !errors.As(hold, &no) || !slices.Equal(no.Offered, []string{"dns-01"}) {
					t.Errorf("the error is %v", hold.Err)
				}
				if _, found := r.kept(); found {
					t.Error("an order is kept that cannot be completed")
				}
				r.ca.members = `"issuer-domain-names":["ca.test"]`
				r.dns.set(wwwName, wwwValue)
				time.Sleep(row.wait + time.Second)
				r.succeeds()
			})
		})
	}
}

func TestAChallengeOfAnotherForm(t *testing.T) {
	const second = "second.test; accounturi=" + fakeAccount
	for _, row := range []struct {
		name      string
		published []string
		asked     string // until the CA is asked to validate, or the record is waited for
		waits     bool
	}{
		{"the record that it wants is looked for", []string{wwwValue}, "new-order authz account", true},
		{"it is published already", []string{wwwValue, second}, "new-order authz challenge authz finalize certificate", false},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newTrial(t)
				r.knowsTheCA()
				r.ca.meta, r.ca.members = `"caaIdentities":["ca.test","second.test"]`, `"issuer-domain-names":["second.test"]`
				r.dns.set(wwwName, row.published...)
				if row.waits {
					hold := r.holds(ReasonWrong)
					if hold.Record.Value != second {
						t.Errorf("it waits for %q", hold.Record.Value)
					}
					if n := r.name(); len(n.Attempts) > 0 {
						t.Error("an attempt is counted, and the CA was not asked to validate")
					}
					r.asked(row.asked)
					r.dns.set(wwwName, second)
				}
				r.succeeds()
				if row.waits {
					row.asked = "order authz challenge authz finalize certificate" // the same order
				}
				r.asked(row.asked)
			})
		})
	}
}

func TestTheOperatorChoosesAmongTheIssuersNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrial(t, func(c *Config) { c.IssuerDomainName = "second.test" })
		r.ca.members = `"issuer-domain-names":["ca.test","second.test"]`
		if hold := r.holds(ReasonAbsent); hold.Record.Value != "second.test; accounturi="+fakeAccount {
			t.Errorf("it waits for %q", hold.Record.Value)
		}
	})
}

func TestACAThatWantsAnotherAccountURI(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrial(t)
		r.knowsTheCA()
		r.dns.set(wwwName, wwwValue)
		r.ca.members += `,"accounturi":"https://ca.test/account/2"`
		hold := r.holds(ReasonAccountURI)
		r.waits(hold, accountRetry)
		var uri *ca.AccountURIError
		if !errors.As(hold, &uri) || uri.Expected != "https://ca.test/account/2" || uri.Ours != fakeAccount {
			t.Errorf("the error is %v", hold.Err)
		}
		r.asked("new-order authz")
	})
}

func TestAKeyThatWasChangedMeanwhileIsTakenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrial(t)
		r.knowsTheCA()
		r.dns.set(wwwName, wwwValue)
		if _, err := New(r.Config).RollKey(t.Context()); err != nil { // another process
			t.Fatal(err)
		}
		r.ca.asked()
		r.ca.answer("new-order", answer{status: 400, problem: "malformed", detail: "the signature is wrong"})
		r.succeeds()
		r.asked("new-order new-order authz challenge authz finalize certificate")
		if r.logs.FilterMessage("the account's key was changed meanwhile; going on with the new one").Len() != 1 {
			t.Error("it is not logged")
		}
	})
}

func TestALostAccount(t *testing.T) {
	for _, row := range []struct {
		name, onLost string
		replaced     bool
	}{{"stays", OnAccountLostFail, false}, {"is replaced where that is configured", OnAccountLostReplace, true}} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newTrial(t, func(c *Config) { c.OnAccountLost = row.onLost })
				r.knowsTheCA()
				r.dns.set(wwwName, wwwValue)
				r.ca.answer("new-order", answer{status: 400, problem: "accountDoesNotExist", detail: "who?"})
				if row.replaced {
					r.ca.answer("account", answer{status: 400, problem: "accountDoesNotExist", detail: "who?"})
					r.succeeds()
					return
				}
				r.waits(r.holds(ReasonAccount), accountRetry)
				r.asked("new-order")
				if _, found := r.kept(); found {
					t.Error("an order is kept that was not made")
				}
			})
		})
	}
}

func TestALimitOfTheCA(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrial(t)
		r.knowsTheCA()
		r.dns.set(wwwName, wwwValue)
		r.ca.answer("new-order", answer{status: 429, retryAfter: "600", problem: "rateLimited", detail: "too many orders, see https://ca.test/limits"})
		hold := r.holds(ReasonRateLimited)
		r.waits(hold, 10*time.Minute)
		var limited *ca.RateLimitedError
		if !errors.As(hold, &limited) || limited.URL != "https://ca.test/limits" || !limited.RetryAt.Equal(hold.Until) {
			t.Errorf("the error is %v", hold.Err)
		}
		r.asked("new-order")
		r.Issuer = New(r.Config) // as after a restart
		time.Sleep(5 * time.Minute)
		r.waits(r.holds(ReasonRateLimited), 5*time.Minute)
		r.asked("dir")
		time.Sleep(5*time.Minute + time.Second)
		r.succeeds()
	})
}

func TestALimitLaterInTheAttempt(t *testing.T) {
	for step, attempts := range map[string]int{"authz": 0, "challenge": 0, "finalize": 0} {
		t.Run(step, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newTrial(t)
				r.knowsTheCA()
				r.dns.set(wwwName, wwwValue)
				r.ca.answer(step, answer{status: 503, retryAfter: "120", problem: "serverInternal", detail: "maintenance"})
				r.waits(r.holds(ReasonRateLimited), 2*time.Minute)
				if n := r.name(); len(n.Attempts) != attempts {
					t.Errorf("%d attempts are counted, want %d", len(n.Attempts), attempts)
				}
				if _, found := r.kept(); !found {
					t.Error("the order is not kept")
				}
				r.ca.asked()
				time.Sleep(2*time.Minute + time.Second)
				r.succeeds()
				if asked := r.ca.asked(); strings.Contains(asked, "new-order") {
					t.Errorf("another order was made: %s", asked)
				}
			})
		})
	}
}

func TestACAThatIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrial(t)
		r.knowsTheCA()
		r.dns.set(wwwName, wwwValue)
		r.ca.answer("new-order", slices.Repeat([]answer{{status: 500, problem: "serverInternal", detail: "out of order"}}, 60)...)
		var waits []time.Duration
		for range 6 {
			hold := r.holds(ReasonCADown)
			waits = append(waits, time.Until(hold.Until).Round(time.Second))
			time.Sleep(time.Until(hold.Until))
		}
		if waits[0] != time.Minute || !slices.IsSorted(waits) || waits[5] < 3*time.Minute {
			t.Errorf("it waits %v, want a minute and then longer", waits)
		}
		if asked := r.ca.asked(); strings.ReplaceAll(asked, "new-order", "") != strings.Repeat(" ", strings.Count(asked, " ")) {
			t.Errorf("the CA was asked for %s", asked)
		}
		if _, found := r.kept(); found {
			t.Error("an order is kept that was not made")
		}
		// a certificate that runs out waits less
		time.Sleep(time.Minute)
		r.hasCertificate(89*24*time.Hour, 8*time.Minute)
		if hold := r.holds(ReasonCADown); time.Until(hold.Until) > time.Minute {
			t.Errorf("with minutes left it waits %s", time.Until(hold.Until))
		}
		r.ca.answers = map[string][]answer{}
		r.ca.asked()
		r.holds(ReasonCADown) // right after a failure it is not asked
		r.asked("")
		time.Sleep(time.Minute)
		r.succeeds()
		r.ca.answer("new-order", slices.Repeat([]answer{{}}, 30)...)
		if hold := r.holds(ReasonCADown); time.Until(hold.Until) > time.Minute {
			t.Errorf("the next time it waits %s at first", time.Until(hold.Until))
		}
	})
}

func TestACAThatCannotBeReached(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrial(t)
		r.ca.answer("dir", slices.Repeat([]answer{{}}, 4)...)
		r.waits(r.holds(ReasonCADown), time.Minute)
		r.asked("dir dir dir dir")
	})
}
