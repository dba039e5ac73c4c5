package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/dnspersist/caddy-dnspersist/internal/e2e/harness"
	"github.com/dnspersist/caddy-dnspersist/internal/lab"
)

// hiccupLimit is what a certificate may take through any hiccups: CertMagic's own retry
// comes after a minute.
const hiccupLimit = 45 * time.Second

// A CA fails once at every step of one certificate, also at those that only read.
func TestEveryStepFailsOnceWith500(t *testing.T) {
	everyStepFailsOnce(t, lab.Fault{Status: http.StatusInternalServerError, RetryAfter: "2"}, 2*time.Second, 1)
}

func TestEveryStepFailsOnceWith503(t *testing.T) {
	everyStepFailsOnce(t, lab.Fault{Status: http.StatusServiceUnavailable, RetryAfter: "2"}, 2*time.Second, 1)
}

func TestEveryStepFailsOnceWith429(t *testing.T) {
	everyStepFailsOnce(t, lab.Fault{Status: http.StatusTooManyRequests, RetryAfter: "2"}, 2*time.Second, 1)
}

func TestEveryStepIsCutBefore(t *testing.T) {
	everyStepFailsOnce(t, lab.Fault{CutBefore: true}, 0, 1)
}

// An order whose answer was lost is not found again.
func TestEveryStepIsCutAfter(t *testing.T) { everyStepFailsOnce(t, lab.Fault{CutAfter: true}, 0, 2) }

// everyStepFailsOnce obtains a certificate through a fault after which the CA wants to be left
// alone for a time, with at most so many orders.
func everyStepFailsOnce(t *testing.T, fault lab.Fault, wait time.Duration, orders int) {
	steps := []string{"directory", "nonce", "new-account", "account", "new-order", "order", "authz", "challenge", "finalize", "certificate"}
	e := harness.New(t, harness.Options{})
	for _, step := range steps {
		fault.Step = step
		e.CA.Inject(fault)
	}
	name := e.Name("every")
	began := time.Now()
	e.Load(e.Global() + e.Site(name, e.Block()))
	e.Publish(name, e.Asked(name))
	e.WaitTrusted(name, hiccupLimit)
	took := time.Since(began)
	t.Logf("a certificate after %s", took.Round(100*time.Millisecond))
	if took > hiccupLimit {
		t.Errorf("the certificate took %s, want at most %s", took, hiccupLimit)
	}
	if n := len(e.Logs("will retry")); n != 0 {
		t.Errorf("CertMagic had to try again %d times", n)
	}
	oneCertificate(t, e, orders)
	for _, step := range steps {
		var hit time.Time
		for _, r := range e.CA.Requests(step) {
			if gap := r.Time.Sub(hit); !hit.IsZero() && gap < wait {
				t.Errorf("the step %s was repeated after %s, the CA wanted %s", step, gap, wait)
			}
			if r.Faulted {
				hit = r.Time
			}
		}
		if hit.IsZero() {
			t.Errorf("the fault at the step %s did not happen", step)
		}
	}
}

// A CA that is down is left alone although the record of a domain is complete, and has been since: each look at DNS
// would have it tried again otherwise, in vain.
func TestCompleteRecordWhileTheCAIsDown(t *testing.T) {
	e := harness.New(t, harness.Options{})
	name := e.Name("down")
	e.Load(e.Global() + e.Site(name, e.Block()))
	value := e.Asked(name)
	e.CA.Inject(lab.Fault{Status: http.StatusServiceUnavailable, RetryAfter: "1", Times: -1}) // new nonces too
	e.Publish(name, value)
	held := func() []map[string]any { return e.Logs("this domain has to wait for its certificate") }
	e.Eventually(2*harness.Soon, "the end of the attempt", func() error { return harness.AtLeast(len(held()), 1) })
	if l := held()[0]; l["reason"] != "ca_down" || l["level"] != "info" {
		t.Errorf("it waits for %v at %v", l["reason"], l["level"])
	}
	asked, looked := len(e.CA.Requests()), len(e.DNS.Queries())
	e.Eventually(harness.Soon, "DNS to be looked at again, twice", func() error { return harness.AtLeast(len(e.DNS.Queries()), looked+2*e.DNS.Servers()) })
	if n := len(e.CA.Requests()) - asked; n != 0 {
		t.Errorf("a CA that is down was asked %d times more", n)
	}
	if n := len(e.Logs("trying again to obtain the certificate")); n != 1 {
		t.Errorf("it was tried again %d times, want once, as its record was complete", n)
	}
}

// oneCertificate checks what must hold however a certificate came about.
func oneCertificate(t *testing.T, e *harness.Env, orders int) {
	t.Helper()
	if n := e.CA.Certificates(); n != 1 {
		t.Errorf("the CA issued %d certificates, want 1", n)
	}
	if n := len(e.CA.Orders()); n > orders {
		t.Errorf("the CA saw %d orders, want at most %d", n, orders)
	}
	if n := len(e.CA.Accounts()); n != 1 {
		t.Errorf("the CA has %d accounts, want 1", n)
	}
	if failed := e.CA.FailedValidations(); len(failed) != 0 {
		t.Errorf("failed validations: %v", failed)
	}
}

// A wait too long for one attempt ends it at whatever step. Neither the step nor an order
// in place of the kept one is tried before its time.
func TestLongRetryAfterIsObeyedAtEachStep(t *testing.T) {
	for _, step := range []string{"directory", "new-order", "order", "authz", "challenge", "finalize"} {
		for _, status := range []int{http.StatusTooManyRequests, http.StatusServiceUnavailable} {
			t.Run(fmt.Sprint(step, " ", status), func(t *testing.T) {
				e := harness.New(t, harness.Options{})
				name := e.Name("long")
				e.Publish(name, e.Value(e.Bind(), false))
				before := e.CA.Count(step)
				e.CA.Inject(lab.Fault{Step: step, Status: status, RetryAfter: "7200", Times: -1})
				e.Load(e.Global() + e.Site(name, e.Block()))
				e.Eventually(20*time.Second, "the end of the attempt", func() error {
					for _, l := range e.Logs("could not get certificate from issuer") {
						if text := fmt.Sprint(l["error"]); strings.Contains(text, "the CA asks to wait until") {
							return nil
						}
					}
					return fmt.Errorf("no entry")
				})
				if n := e.CA.Count(step) - before; n != 1 {
					t.Errorf("the step %s was tried %d times, want once", step, n)
				}
				if n := e.CA.Count("new-order"); n > 1 {
					t.Errorf("%d orders were tried, want at most 1", n)
				}
			})
		}
	}
}

// A renewal's order that the CA puts off is not tried again without `replaces`.
func TestPutOffOrderKeepsReplaces(t *testing.T) {
	e := harness.New(t, harness.Options{Lifetime: 12 * time.Second})
	name := e.Name("putoff")
	e.Publish(name, e.Value(e.Bind(), false))
	e.Load(e.Global("renew_interval 1s") + e.Site(name, e.Block()))
	e.WaitTrusted(name, harness.Soon)
	e.CA.Inject(lab.Fault{Step: "new-order", Status: http.StatusServiceUnavailable, RetryAfter: "7200", Times: -1})
	e.Eventually(harness.Soon, "the end of the attempt", func() error {
		return harness.AtLeast(len(e.Logs("could not get certificate from issuer")), 1)
	})
	tried := e.CA.Requests("new-order")[1:]
	if len(tried) != 1 || tried[0].Replaces == "" {
		t.Errorf("the renewal's order was tried %d times, want once, with replaces: %+v", len(tried), tried)
	}
}

// Boulder leaves a challenge pending while it validates, and validates once more at each
// further POST.
func TestChallengeThatStaysPendingIsPostedOnce(t *testing.T) {
	e := harness.New(t, harness.Options{})
	e.CA.SetValidationDelay(5 * time.Second)
	e.CA.MutateAuthz(func(authz map[string]any) {
		challenges, _ := authz["challenges"].([]any)
		for _, c := range challenges {
			if c, ok := c.(map[string]any); ok && c["status"] == "processing" {
				c["status"] = "pending"
			}
		}
	})
	name := e.Name("pending")
	e.Publish(name, e.Value(e.Bind(), false))
	e.Load(e.Global() + e.Site(name, e.Block()))
	e.WaitTrusted(name, hiccupLimit)
	if n := e.CA.Count("challenge"); n != 1 {
		t.Errorf("the challenge was posted %d times, want once", n)
	}
	if gap := e.CA.PollGap("authz"); gap == 0 || gap > 5*time.Second {
		t.Errorf("the shortest time between two polls was %s: the delay did not happen", gap)
	}
	oneCertificate(t, e, 1)
}

// A post that the CA has refused comes again after a second at the earliest, and after as
// long as the CA wants.
func TestRefusedChallengePosts(t *testing.T) {
	e := harness.New(t, harness.Options{})
	name := e.Name("refused")
	e.Publish(name, e.Value(e.Bind(), false))
	e.CA.Inject(lab.Fault{Step: "challenge", Status: http.StatusInternalServerError})
	e.CA.Inject(lab.Fault{Step: "challenge", Status: http.StatusServiceUnavailable, RetryAfter: "3"})
	e.CA.Inject(lab.Fault{Step: "challenge", Status: http.StatusServiceUnavailable, RetryAfter: "0"})
	e.Load(e.Global() + e.Site(name, e.Block()))
	e.WaitTrusted(name, hiccupLimit)
	posts := e.CA.Requests("challenge")
	if len(posts) != 4 {
		t.Fatalf("the challenge was posted %d times, want 4", len(posts))
	}
	for i, want := range []time.Duration{time.Second, 3 * time.Second, time.Second} {
		if gap := posts[i+1].Time.Sub(posts[i].Time); gap < want {
			t.Errorf("post %d came %s after the one before, want at least %s", i+2, gap, want)
		}
	}
	oneCertificate(t, e, 1)
}
