package acmepersist

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
)

// doubtful is a value that not every CA accepts.
const doubtful = "CA.test; accounturi=" + fakeAccount

func TestWhatFollowsARefusal(t *testing.T) {
	for _, row := range []struct {
		name    string
		problem string
		// published is what DNS shows; nobody looks where there is none.
		published string
		// disagrees is true if DNS shows what should have done, internal if it was the CA's own fault.
		disagrees, internal bool
		// refused is true if the value is not tried again, wait how long the CA is left alone.
		refused bool
		wait    time.Duration
		text    string
	}{
		{"the record is good, and the CA's resolver fails", "dns", wwwValue, true, false, false, 5 * time.Minute, "the CA's resolver met a server that does not answer it"},
		{"the record is good, and the CA saw another one", "unauthorized", wwwValue, true, false, false, 5 * time.Minute, "the CA has seen other data than we have"},
		{"CAA records are read differently", "caa", wwwValue, true, false, false, 5 * time.Minute, "the CA's reading of the CAA records forbids it"},
		{"a fault inside the CA", "serverInternal", wwwValue, false, true, false, 5 * time.Minute, "neither the record at " + wwwName + " nor DNS is the cause"},
		{"a record that not every CA accepts", "unauthorized", doubtful, false, false, true, time.Minute, "did not validate"},
		{"such a record, and an error that says nothing of it", "connection", doubtful, false, false, false, time.Minute, "did not validate"},
		{"nobody looks: the record may be wrong", "unauthorized", "", false, false, false, time.Minute, "did not validate"},
		{"nobody looks, and the CA's resolver fails", "dns", "", false, false, false, 5 * time.Minute, "did not validate"},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newTrial(t)
				if row.published == "" {
					r = newTrial(t, func(c *Config) { c.Checker = nil })
				}
				r.knowsTheCA()
				if row.published != "" {
					r.dns.set(wwwName, row.published)
				}
				accepted := []state.AcceptedValue{{Value: "an earlier one", Account: fakeAccount}}
				err := r.Issuer.ca.Store.UpdateName(t.Context(), wwwName, func(n *state.Name) bool { n.Accepted = accepted; return true })
				if err != nil {
					t.Fatal(err)
				}
				r.ca.verdict = row.problem
				hold := r.holds(ReasonRejected)
				if !strings.Contains(hold.Error(), row.text) || !strings.Contains(hold.Error(), "no record that fits") {
					t.Errorf("the error lacks %q or what the CA said: %v", row.text, hold)
				}
				var disagreement *DisagreementError
				var refused *RefusedError
				if errors.As(hold, &disagreement) != row.disagrees || errors.As(hold, &refused) == row.disagrees || refused != nil && refused.Internal != row.internal {
					t.Errorf("the error is %T, %+v", hold.Err, hold.Err)
				}
				r.waits(hold, row.wait)
				n := r.name()
				if len(n.Attempts) != 1 || (len(n.Refused) > 0) != row.refused || (len(n.Accepted) > 0) != row.internal {
					t.Errorf("noted is %+v", n)
				}
				if want := row.wait > time.Minute; n.NotBefore.IsZero() == want {
					t.Errorf("it is not asked before %s", n.NotBefore)
				}
				if _, found := r.kept(); found {
					t.Error("the order is kept, and of no more use")
				}
				// good news in DNS end the wait only where DNS showed something else
				if watched := hold.Watch != nil; watched {
					t.Error("DNS is watched, which has nothing to do with it")
				}
			})
		})
	}
}

func TestARefusedValueIsNotTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrial(t)
		r.knowsTheCA()
		r.dns.set(wwwName, doubtful)
		r.ca.verdict = "unauthorized"
		r.holds(ReasonRejected)
		time.Sleep(time.Hour)
		r.ca.asked()
		hold := r.holds(ReasonWrong)
		if f := hold.Watch.Find(hold.Watch.Report); len(f.Values) != 1 || !strings.Contains(f.Do, "the issuer domain name is written CA.test") {
			t.Errorf("the advice is %q", f.Do)
		}
		r.asked("dir account")
		r.dns.set(wwwName, doubtful, wwwValue)
		r.ca.verdict = "valid"
		r.succeeds()
		if n := r.name(); len(n.Refused) > 0 || len(n.Attempts) > 0 {
			t.Errorf("after the CA's yes it remembers %+v", n)
		}
	})
}

func TestASecondRefusalWithinTheHourWaitsLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrial(t)
		r.knowsTheCA()
		r.dns.set(wwwName, wwwValue)
		r.ca.verdict = "unauthorized"
		r.waits(r.holds(ReasonRejected), 5*time.Minute)
		time.Sleep(5*time.Minute + time.Second)
		r.waits(r.holds(ReasonRejected), 15*time.Minute)
	})
}

func TestARefusalAgainstWhatDNSAdvisesWatchesDNS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrial(t)
		r.knowsTheCA()
		r.hasCertificate(85*24*time.Hour, 5*24*time.Hour)
		r.dns.set(wwwName, "ca.test; accounturi=https://ca.test/account/0")
		r.ca.verdict = "unauthorized"
		hold := r.holds(ReasonRejected)
		if hold.Watch == nil || hold.NotAfter.IsZero() {
			t.Fatalf("it is watched by %v, the certificate ends at %s", hold.Watch, hold.NotAfter)
		}
		if left := time.Until(hold.Until); left < 5*time.Hour || left > 6*time.Hour {
			t.Errorf("it waits %s, want six hours", left)
		}
		r.dns.set(wwwName, wwwValue)
		began := time.Now()
		if seen, err := hold.Wait(t.Context()); err != nil || time.Since(began) > 11*time.Minute || seen == nil {
			t.Errorf("after %s: %v, %v", time.Since(began), seen, err)
		}
	})
}

func TestThePostOfAChallengeThatIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrial(t)
		r.knowsTheCA()
		r.dns.set(wwwName, wwwValue)
		r.ca.answer("challenge", answer{status: 403, problem: "unauthorized", detail: "policy"}, answer{status: 500, problem: "serverInternal"})
		r.succeeds() // it may be one frontend's answer
		r.asked("new-order authz challenge authz challenge authz challenge authz finalize certificate")

		r.ca.answer("challenge", answer{status: 403, problem: "unauthorized", detail: "policy", acted: true})
		r.succeeds() // it has acted on it
		r.asked("new-order authz challenge authz authz finalize certificate")

		refusal := answer{status: 403, problem: "unauthorized", detail: "policy forbids it"}
		r.ca.answer("challenge", refusal, refusal, refusal, refusal)
		if err := r.fails(); !strings.Contains(err.Error(), "policy forbids it") {
			t.Errorf("the error is %v", err)
		}
		if n := r.name(); len(n.Attempts) != 1 {
			t.Errorf("%d attempts are counted", len(n.Attempts))
		}
	})
}

// An order is finalized at once when its authorization is valid. A CA whose order is not as far is waited for.
func TestAnOrderThatLagsBehindItsAuthorization(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrial(t)
		r.knowsTheCA()
		r.dns.set(wwwName, wwwValue)
		notReady := answer{status: 403, problem: "orderNotReady"}
		r.ca.answer("finalize", notReady)
		began := time.Now()
		r.succeeds()
		r.asked("new-order authz challenge authz finalize order finalize certificate")
		if took := time.Since(began); took > 100*time.Millisecond {
			t.Errorf("it took %s", took)
		}

		r.ca.answers["finalize"] = slices.Repeat([]answer{notReady}, 1000)
		if err := r.fails(); !strings.Contains(err.Error(), "finalizing the order") {
			t.Errorf("the error is %v", err)
		}
		if n := strings.Count(r.ca.asked(), "finalize"); n > 5 {
			t.Errorf("it was finalized %d times", n)
		}
	})
}

// One that lags for longer than the CA is waited for is given up.
func TestAnOrderThatLagsForTooLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrial(t, func(c *Config) { c.Timeout = 2 * time.Second })
		r.knowsTheCA()
		r.dns.set(wwwName, wwwValue)
		r.ca.answer("finalize", answer{status: 403, problem: "orderNotReady"})
		looks := 0
		r.ca.asking = func(step string) {
			switch order := r.ca.orders[len(r.ca.orders)-1]; step {
			case "finalize":
				order.status = "pending"
			case "order":
				if looks++; looks == 4 {
					order.status = "ready"
				} else if looks > 10 {
					panic("the order is read again and again")
				}
			}
		}
		if err := r.fails(); !strings.Contains(err.Error(), "still ready after 2s") {
			t.Errorf("the error is %v", err)
		}
	})
}

func TestAnOrderThatTheCARefusesToFinalize(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrial(t)
		r.knowsTheCA()
		r.dns.set(wwwName, wwwValue)
		r.ca.answer("finalize", answer{status: 400, problem: "badCSR", detail: "a weak key"})
		if err := r.fails(); !strings.Contains(err.Error(), "a weak key") {
			t.Errorf("the error is %v", err)
		}
		r.ca.asked()
		refusal := answer{status: 403, problem: "unauthorized", detail: "policy forbids it"}
		r.ca.answer("finalize", refusal, refusal)
		if err := r.fails(); !strings.Contains(err.Error(), "policy forbids it") {
			t.Errorf("the error is %v", err)
		}
		r.asked("order finalize order finalize order")
		r.succeeds()
	})
}
