package acmepersist

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
)

// asksInVain has the CA validate for longer than an attempt waits.
func (r *trial) asksInVain() *Hold {
	r.t.Helper()
	r.knowsTheCA()
	r.dns.set(wwwName, wwwValue)
	r.ca.verdict = "pending"
	hold := r.holds(ReasonProcessing)
	r.ca.asked()
	return hold
}

func TestACAThatTakesItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrial(t)
		began := time.Now()
		hold := r.asksInVain()
		kept, found := r.kept()
		if !found || kept.URL != "https://ca.test/order/2" || kept.PostedAt.Sub(began) > time.Minute || kept.Seen == nil || kept.Seen.Status != propagation.StatusReady {
			t.Fatalf("kept is %+v", kept)
		}
		var processing *ProcessingError
		if !errors.As(hold, &processing) || !processing.Since.Equal(kept.PostedAt) || !processing.RetryAt.Equal(hold.Until) {
			t.Errorf("the error is %v", hold.Err)
		}
		if wait := time.Until(hold.Until); wait < time.Minute || wait > 2*time.Minute {
			t.Errorf("it waits %s, want a quarter of what it took", wait)
		}
		time.Sleep(time.Hour)
		r.Issuer = New(r.Config) // as after a restart
		r.dns.set(wwwName)       // what DNS shows now is not for us to judge
		r.holds(ReasonProcessing)
		if asked := r.ca.asked(); !strings.HasPrefix(asked, "dir order authz authz") || strings.Contains(asked, "challenge") || strings.Contains(asked, "new-order") {
			t.Errorf("the CA was asked for %s", asked)
		}
		if n := r.name(); len(n.Attempts) != 1 {
			t.Errorf("%d attempts are counted, want the one", len(n.Attempts))
		}
		r.ca.verdict = "valid"
		r.succeeds()
		r.asked("order authz finalize certificate")
		if n := r.name(); len(n.Attempts) > 0 || len(n.Accepted) != 1 {
			t.Errorf("noted is %+v", n)
		}
	})
}

func TestARefusalThatCameWhileNobodyWaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrial(t)
		r.asksInVain()
		r.ca.verdict = "unauthorized"
		hold := r.holds(ReasonRejected)
		r.asked("order authz")
		var disagreement *DisagreementError
		if !errors.As(hold, &disagreement) || disagreement.Report.Zone != "example.test" {
			t.Errorf("what DNS showed then is forgotten: %v", hold.Err)
		}
		if n := r.name(); len(n.Attempts) != 1 || n.NotBefore.IsZero() {
			t.Errorf("noted is %+v", n)
		}
		if _, found := r.kept(); found {
			t.Error("the order is kept, and of no more use")
		}
	})
}

// An order in whose place another process has noted one of its own is not finalized, and the other one is left alone.
func TestAnOrderThatAnotherProcessHasReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrial(t)
		r.knowsTheCA()
		r.dns.set(wwwName, wwwValue)
		store := r.Issuer.ca.Store
		other := state.Order{URL: "https://ca.test/order/1", Account: fakeAccount, FinalizedFor: "another key", FinalizedAt: time.Now().UTC()}
		r.ca.asking = func(step string) {
			if step == "challenge" {
				if err := store.Save(t.Context(), store.OrderKey("www.example.test"), other); err != nil {
					t.Error(err)
				}
			}
		}
		r.holds(ReasonProcessing)
		if asked := r.ca.asked(); strings.Contains(asked, "finalize") {
			t.Errorf("the CA was asked for %s", asked)
		}
		if kept, _ := r.kept(); kept.URL != other.URL || kept.FinalizedFor != other.FinalizedFor {
			t.Errorf("kept is %+v", kept)
		}
	})
}

func TestARefusalThatTheCAHasForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrial(t)
		r.asksInVain()
		r.ca.orders[1].status = "invalid"
		r.ca.answer("authz", answer{status: 404, problem: "malformed", detail: "no such authorization"})
		r.ca.verdict = "valid"
		r.succeeds() // by another order
		r.asked("order authz order new-order authz challenge authz finalize certificate")
	})
}

func TestACAThatNeverDecides(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrial(t)
		r.asksInVain()
		time.Sleep(r.Timeout)
		if err := r.fails(); !strings.Contains(err.Error(), "the CA has not decided after 12h0m0s, another order will be made") {
			t.Errorf("the error is %v", err)
		}
		if _, found := r.kept(); found {
			t.Error("the order is kept")
		}
	})
}

func TestWhatBecomesOfAKeptOrder(t *testing.T) {
	const goesOn, another = "order authz challenge authz finalize certificate", "new-order authz challenge authz finalize certificate"
	for _, row := range []struct {
		name   string
		change func(r *trial)
		asked  string
	}{
		{"it is gone on with", func(*trial) {}, goesOn},
		{"the CA has forgotten it", func(r *trial) {
			r.ca.answer("order", answer{status: 404, problem: "malformed", detail: "no such order"})
		}, "order " + another},
		{"it has failed", func(r *trial) { r.ca.orders[1].status = "invalid" }, "order " + another},
		{"it is ready", func(r *trial) { r.ca.orders[1].status, r.ca.orders[1].authz = "ready", "valid" }, "order finalize certificate"},
		{"its authorization is valid", func(r *trial) { r.ca.orders[1].authz, r.ca.orders[1].challenge = "valid", "valid" }, "order authz finalize certificate"},
		{"its challenge was posted by somebody", func(r *trial) { r.ca.orders[1].challenge = "processing" }, "order authz finalize certificate"},
		{"it is of another profile", func(r *trial) {
			r.ca.meta += `,"profiles":{"short":"https://ca.test/short"}`
			r.Profile = "short"
			r.Issuer = New(r.Config)
		}, "dir " + another},
		{"it was finalized for another key", func(r *trial) {
			r.ca.orders[1].status, r.ca.orders[1].authz = "valid", "valid"
		}, "order " + another},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newTrial(t)
				r.knowsTheCA()
				r.dns.set(wwwName, wwwValue)
				refusal := answer{status: 403, problem: "unauthorized", detail: "not now"}
				r.ca.answer("challenge", refusal, refusal, refusal, refusal)
				r.fails()
				r.ca.asked()
				row.change(r)
				r.succeeds()
				r.asked(row.asked)
			})
		})
	}
}

func TestACertificateThatWasIssuedIsFetched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrial(t)
		r.knowsTheCA()
		r.dns.set(wwwName, wwwValue)
		r.ca.answer("finalize", answer{acted: true}, answer{acted: true}, answer{acted: true}) // its answers are lost
		r.succeeds()
		r.asked("new-order authz challenge authz finalize finalize finalize order certificate")

		// the process ends before it has the certificate; CertMagic keeps the key
		missing := answer{status: 404, problem: "malformed", detail: "no such certificate"}
		for range 30 {
			r.ca.answer("certificate", missing)
		}
		if err := r.fails(); !strings.Contains(err.Error(), "no such certificate") {
			t.Errorf("the error is %v", err)
		}
		if kept, found := r.kept(); !found || kept.FinalizedFor == "" {
			t.Fatalf("kept is %+v", kept)
		}
		r.ca.answers["certificate"] = nil
		r.ca.asked()
		r.succeeds()
		r.asked("order order certificate")
	})
}

func TestAnAnswerThatWasLostCostsNoSecondValidation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrial(t)
		r.knowsTheCA()
		r.dns.set(wwwName, wwwValue)
		r.ca.answer("challenge", answer{acted: true}, answer{}, answer{})
		r.succeeds()
		if asked := r.ca.asked(); !strings.HasPrefix(asked, "new-order authz challenge challenge challenge authz authz") && !strings.HasPrefix(asked, "new-order authz challenge challenge challenge authz order") {
			t.Errorf("the CA was asked for %s", asked)
		}
	})
}

// A domain that waits and asks the CA nothing does not make a CA that is down look as if it were up again.
func TestOutageIsEndedByAnAnswerOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrial(t)
		r.knowsTheCA()
		r.wants("waits.example.test")
		r.holds(ReasonAbsent)
		r.wants("www.example.test")
		r.dns.set(wwwName, wwwValue)
		r.ca.answer("new-order", slices.Repeat([]answer{{status: 500, problem: "serverInternal", detail: "out of order"}}, 200)...)
		var last time.Duration
		for range 6 {
			hold := r.holds(ReasonCADown)
			last = time.Until(hold.Until).Round(time.Second)
			r.wants("waits.example.test")
			r.holds(ReasonAbsent)
			r.wants("www.example.test")
			time.Sleep(time.Until(hold.Until))
		}
		if last < 3*time.Minute {
			t.Errorf("after six attempts it waits %s", last)
		}
	})
}

// A record is in no Hold before the CA has confirmed the account that it names.
func TestUnconfirmedRecordIsNotShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrial(t)
		r.knowsTheCA()
		r.Issuer = New(r.Config)
		r.ca.answer("account", slices.Repeat([]answer{{status: 403, problem: "unauthorized", detail: "not yours"}}, 3)...)
		if hold := r.isHold(r.fails(), ReasonAccount); hold.Record != (Record{}) {
			t.Errorf("the record %+v is shown", hold.Record)
		}
	})
}

// A certificate that runs out is asked for also where nothing can be published.
func TestUnconfirmedAccountDoesNotHoldUpTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrial(t, func(c *Config) {
			c.Publishing = &Publishing{Provider: brokenProvider{time.Hour}, Mode: PublishKeep}
		})
		r.knowsTheCA()
		r.hasCertificate(85*24*time.Hour, 5*24*time.Hour)
		r.Issuer = New(r.Config)
		r.ca.answer("account", slices.Repeat([]answer{{status: 404, problem: "malformed", detail: "no such resource"}}, 2)...)
		if err := r.obtain(Request{}); err != nil {
			t.Errorf("there is no certificate: %v", err)
		}
	})
}

// An order that has ended although its authorization is valid is followed by another one at once.
func TestEndedOrderWithAValidAuthorization(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrial(t)
		r.asksInVain()
		r.ca.orders[1].status, r.ca.orders[1].authz, r.ca.orders[1].challenge = "invalid", "valid", "valid"
		r.ca.verdict = "valid"
		if err := r.obtain(Request{}); err != nil {
			t.Errorf("there is no certificate: %v", err)
		}
	})
}

// Where nobody looks, a renewal that was refused is tried again soon: nothing in DNS could end the wait.
func TestRefusedRenewalWithoutALook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrial(t, func(c *Config) { c.Checker = nil })
		r.knowsTheCA()
		r.hasCertificate(60*24*time.Hour, 30*24*time.Hour)
		r.ca.verdict = "unauthorized"
		if wait := time.Until(r.holds(ReasonRejected).Until); wait > time.Hour {
			t.Errorf("it waits %s", wait)
		}
	})
}
