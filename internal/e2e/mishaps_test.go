package e2e

// Certificates through what can go wrong at a CA.

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/dnspersist/caddy-dnspersist/internal/e2e/harness"
	"github.com/dnspersist/caddy-dnspersist/internal/lab"
)

// mishapLimit is less than CertMagic's own retry, which comes after a minute.
const mishapLimit = 50 * time.Second

// obtainAskedFor starts Caddy, publishes the record that it asks for, and waits for
// the certificate.
func obtainAskedFor(e *harness.Env, name string) {
	e.T.Helper()
	e.Load(e.Global() + e.Site(name, e.Block()))
	var value string
	e.Eventually(mishapLimit, "the record to be asked for", func() error {
		for _, l := range e.Logs("publish this TXT record once") {
			value, _ = l["value"].(string)
			return nil
		}
		return fmt.Errorf("no entry")
	})
	e.Publish(name, value)
	e.WaitTrusted(name, mishapLimit)
}

// assertOne checks what must hold whatever happened on the way.
func assertOne(e *harness.Env) {
	e.T.Helper()
	if n := e.CA.Certificates(); n != 1 {
		e.T.Errorf("the CA issued %d certificates, want 1", n)
	}
	if n := len(e.CA.Accounts()); n != 1 {
		e.T.Errorf("the CA has %d accounts, want 1", n)
	}
	if failed := e.CA.FailedValidations(); len(failed) != 0 {
		e.T.Errorf("failed validations: %v", failed)
	}
}

// One certificate is issued whatever goes wrong once at a step.
func TestMishapsAtNewAccount(t *testing.T)  { mishapsAt(t, "new-account") }
func TestMishapsAtNewOrder(t *testing.T)    { mishapsAt(t, "new-order") }
func TestMishapsAtChallenge(t *testing.T)   { mishapsAt(t, "challenge") }
func TestMishapsAtFinalize(t *testing.T)    { mishapsAt(t, "finalize") }
func TestMishapsAtCertificate(t *testing.T) { mishapsAt(t, "certificate") }

func mishapsAt(t *testing.T, step string) {
	const wait = 2 * time.Second
	kinds := []struct {
		name  string
		fault lab.Fault
		// wait is how long the CA asked to be left alone.
		wait time.Duration
	}{
		{"500", lab.Fault{Status: http.StatusInternalServerError}, 0},
		{"503 with Retry-After", lab.Fault{Status: http.StatusServiceUnavailable, RetryAfter: "2"}, wait},
		{"429 with Retry-After", lab.Fault{Status: http.StatusTooManyRequests, RetryAfter: "2"}, wait},
		{"Retry-After 0", lab.Fault{Status: http.StatusServiceUnavailable, RetryAfter: "0", Times: 2}, time.Second},
		{"cut before", lab.Fault{CutBefore: true}, 0},
		{"cut after", lab.Fault{CutAfter: true}, 0},
	}
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			e := harness.New(t, harness.Options{})
			fault := kind.fault
			fault.Step = step
			e.CA.Inject(fault)
			obtainAskedFor(e, e.Name("m"))
			assertOne(e)
			var faulted time.Time
			for _, r := range e.CA.Requests(step) {
				if !faulted.IsZero() && r.Time.Sub(faulted) < kind.wait-50*time.Millisecond {
					t.Errorf("asked again after %s, want at least %s", r.Time.Sub(faulted), kind.wait)
				}
				faulted = time.Time{}
				if r.Faulted {
					faulted = r.Time
				}
			}
			if e.CA.Count(step) < 2 {
				t.Errorf("the step %s was not repeated: the fault did not happen", step)
			}
		})
	}
}

func TestBadNonces(t *testing.T) {
	e := harness.New(t, harness.Options{CA: lab.CAConfig{NonceReject: 20}})
	obtainAskedFor(e, e.Name("nonce"))
	assertOne(e)
}

func TestDirectoryHangs(t *testing.T) {
	e := harness.New(t, harness.Options{})
	e.CA.Inject(lab.Fault{Step: "directory", Hang: 25 * time.Second})
	obtainAskedFor(e, e.Name("hang"))
	assertOne(e)
}

func TestDirectoryFailsOnce(t *testing.T) {
	e := harness.New(t, harness.Options{})
	e.CA.Inject(lab.Fault{Step: "directory", Status: http.StatusInternalServerError})
	obtainAskedFor(e, e.Name("dir"))
	assertOne(e)
}

// A CA of our own that takes its time and sends Retry-After: 0 is asked soon, and then ever less often.
func TestSlowCAIsNotHammered(t *testing.T) {
	e := harness.New(t, harness.Options{})
	e.CA.SetValidationDelay(3 * time.Second)
	e.CA.SetFinalizeDelay(3 * time.Second)
	e.CA.SetRetryAfter("0")
	obtainAskedFor(e, e.Name("slow"))
	assertOne(e)
	for _, poll := range []struct{ after, step string }{{"challenge", "authz"}, {"finalize", "order"}} {
		began := e.CA.Requests(poll.after)[0].Time
		polls := 0
		for _, r := range e.CA.Requests(poll.step) {
			if r.Time.Before(began) {
				continue
			}
			polls++
			if poll.step == "authz" && r.Time.After(e.CA.Requests("finalize")[0].Time) {
				break
			}
		}
		if polls < 3 || polls > 16 { // with 20 ms between them it would be 150
			t.Errorf("the %s was polled %d times", poll.step, polls)
		}
	}
}

// A renewal whose `replaces` is refused orders once more without it.
func TestReplacesRefused(t *testing.T) {
	for _, status := range []int{http.StatusConflict, http.StatusForbidden, http.StatusBadRequest} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			e := harness.New(t, harness.Options{Lifetime: 12 * time.Second})
			name := e.Name("replaces")
			e.Publish(name, e.Value(e.Bind(), false))
			e.Load(e.Global("renew_interval 1s") + e.Site(name, e.Block()))
			first := e.WaitTrusted(name, harness.Soon)
			e.CA.Inject(lab.Fault{Step: "new-order", Status: status, Type: "urn:ietf:params:acme:error:malformed", Detail: "no such certificate"})
			e.Eventually(harness.Soon, "the renewed certificate", func() error {
				cert, err := e.Trusted(name)
				if err == nil && cert.SerialNumber.Cmp(first.SerialNumber) == 0 {
					err = fmt.Errorf("still the first one")
				}
				return err
			})
			refused := e.CA.Requests("new-order")[1]
			if refused.Replaces == "" {
				t.Error("the renewal's order did not say what it replaces")
			}
			if again := e.CA.Requests("new-order")[2]; again.Replaces != "" {
				t.Error("the second order says again what it replaces")
			}
		})
	}
}

// A wait that the CA asks for and that is too long for one attempt ends it; the name is
// not asked for before.
func TestLongRetryAfterParks(t *testing.T) {
	e := harness.New(t, harness.Options{})
	name := e.Name("limited")
	e.Publish(name, e.Value(e.Bind(), false))
	e.CA.Inject(lab.Fault{Step: "new-order", Status: http.StatusTooManyRequests, RetryAfter: "7200", Times: -1})
	e.Load(e.Global() + e.Site(name, e.Block()))
	e.Eventually(harness.Soon, "the CA's answer", func() error {
		for _, l := range e.Logs("could not get certificate from issuer") {
			if strings.Contains(fmt.Sprint(l["identifier"]), name) {
				return nil
			}
		}
		return fmt.Errorf("no entry")
	})
	e.Load(e.Global() + e.Site(name, e.Block()))
	e.Eventually(harness.Soon, "the second attempt, from memory", func() error {
		return harness.AtLeast(len(e.Logs("could not get certificate from issuer")), 2)
	})
	if n := e.CA.Count("new-order"); n != 1 {
		t.Errorf("%d orders were tried in spite of Retry-After", n)
	}
}
