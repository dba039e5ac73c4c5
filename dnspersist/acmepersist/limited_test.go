package acmepersist_test

import (
	"encoding/json"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/ca"
	"github.com/dnspersist/caddy-dnspersist/internal/lab"
)

// publish has a record at a name that the CA accepts.
func (i *issuing) publish(names ...string) {
	i.t.Helper()
	account, err := i.Account(i.t.Context())
	if err != nil {
		i.t.Fatal(err)
	}
	for _, name := range names {
		i.dns.SetTXT(0, "_validation-persist."+name, "pebble.letsencrypt.org; accounturi="+account.URL)
	}
}

// limited issues for a name, and wants the CA's limit as the error.
func (i *issuing) limited(name string) *ca.RateLimitedError {
	i.t.Helper()
	err := i.issueFor(i.t.Context(), name)
	var limited *ca.RateLimitedError
	if !errors.As(err, &limited) {
		i.t.Fatalf("%s: the error is %v, want a limit", name, err)
	}
	return limited
}

// What a CA says of a registered domain holds for all its names, and over a restart.
func TestLimitOfADomain(t *testing.T) {
	t.Parallel()
	i := newIssuing(t)
	i.publish("a.example.test", "b.example.test")
	if err := i.issue(t.Context()); err != nil {
		t.Fatal(err)
	}
	i.ca.Inject(lab.TooMany("example.test", time.Hour))
	before := i.ca.Count("new-order")
	i.limited("a.example.test")
	for range 2 {
		limited := i.limited("b.example.test")
		if left := time.Until(limited.RetryAt); left < 50*time.Minute || left > time.Hour {
			t.Errorf("it waits %s, want an hour", left)
		}
		i.Issuer = i.another()
	}
	if n := i.ca.Count("new-order") - before; n != 1 {
		t.Errorf("the CA was asked for %d orders, want 1", n)
	}
}

// A paused name waits for hours, and the log has the page that helps by itself.
func TestPausedName(t *testing.T) {
	t.Parallel()
	i := newIssuing(t)
	core, logs := observer.New(zap.WarnLevel)
	i.with(zap.New(core), nil)
	i.ca.Inject(lab.Paused(issuedName))
	limited := i.limited(issuedName)
	if left := time.Until(limited.RetryAt); left < 5*time.Hour {
		t.Errorf("it is asked again after %s, want hours", left)
	}
	i.limited(issuedName)
	if n := i.ca.Count("new-order"); n != 1 {
		t.Errorf("the CA was asked for %d orders, want 1", n)
	}
	const page = "https://portal.ca.test/sfe/v1/unpause?jwt=a.b.c"
	if limited.URL != page {
		t.Errorf("the page is %q", limited.URL)
	}
	if logs.FilterField(zap.String("url", page)).Len() != 1 {
		t.Errorf("the page is in no field of the log: %v", logs.All())
	}
}

// A wait that the CA asks for ends the attempt, which would hold a job and a lock for it.
func TestWaitIsNotSleptOut(t *testing.T) {
	t.Parallel()
	for _, step := range []string{"new-order", "authz", "challenge", "finalize"} {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			i := newIssuing(t)
			i.ca.Inject(lab.Fault{Step: step, Status: 500, RetryAfter: "60"})
			began := time.Now()
			limited := i.limited(issuedName)
			if took := time.Since(began); took > 8*time.Second {
				t.Errorf("the attempt took %s", took)
			}
			if left := time.Until(limited.RetryAt); left < 50*time.Second || left > time.Minute {
				t.Errorf("it is asked again after %s, want a minute", left)
			}
			if err := i.issue(t.Context()); err != nil {
				t.Fatal(err)
			}
			if n := len(i.ca.Orders()); n != 1 {
				t.Errorf("%d orders were made, want 1", n)
			}
			if n := len(i.ca.Challenges()); n != 1 {
				t.Errorf("%d validations were asked for, want 1", n)
			}
		})
	}
}

// Without a look at DNS the budget of failed validations holds all the same.
func TestBudgetWithoutAChecker(t *testing.T) {
	t.Parallel()
	i := newIssuing(t)
	i.ca.SetPublic(lab.Public{FailedValidations: 5})
	i.Checker = nil
	i.dns.SetTXT(0, "_validation-persist."+issuedName, "pebble.letsencrypt.org; accounturi=https://ca.test/other")
	for range 4 {
		i.refuse("did not validate")
	}
	i.refuse("it is asked again after")
	i.Issuer = i.another()
	i.Checker = nil
	i.refuse("it is asked again after")
	if n := len(i.ca.FailedValidations()); n != 4 {
		t.Errorf("%d validations failed, want 4", n)
	}
}

// Nor is the CA asked where CAA records forbid it to issue.
func TestCAAWithoutAChecker(t *testing.T) {
	t.Parallel()
	i := newIssuing(t)
	i.CAAChecker, i.Checker = i.Checker, nil
	i.publish("a.example.test")
	if err := i.issueFor(t.Context(), "a.example.test"); err != nil { // what the CA offers is known then
		t.Fatal(err)
	}
	i.dns.SetRR(0, issuedName+`. 60 IN CAA 0 issue "other.test"`)
	i.refuse("the CAA records at " + issuedName + " forbid")
	if n := len(i.ca.Orders()); n != 1 {
		t.Errorf("%d orders were made, want 1", n)
	}
}

// A fault inside the CA is told as that: neither the record nor DNS is to be looked at.
func TestFaultInsideTheCA(t *testing.T) {
	t.Parallel()
	i := newIssuing(t)
	if err := i.issue(t.Context()); err != nil {
		t.Fatal(err)
	}
	i.ca.FailValidations(&lab.ErrInternal)
	i.refuse("a fault inside the CA", "Could not communicate with VA", "neither the record at _validation-persist.www.example.test nor DNS is the cause")
	s := i.state()
	if len(s.Attempts) != 1 || !s.NotBefore.After(time.Now().Add(4*time.Minute)) {
		t.Errorf("%d attempts are counted, the next one not before %s", len(s.Attempts), s.NotBefore)
	}
	if len(s.Accepted) != 1 {
		t.Error("what the CA has accepted before is forgotten")
	}
}

func TestRefusalOfAnotherPerspective(t *testing.T) {
	t.Parallel()
	i := newIssuing(t)
	i.publish("a.example.test")
	if err := i.issueFor(t.Context(), "a.example.test"); err != nil {
		t.Fatal(err)
	}
	i.ca.FailValidations(&lab.ErrSecondary)
	i.refuse("ca_disagrees", "the CA looks from several places")
}

// A certificate that another order replaces already is renewed by an order that says nothing of it.
func TestReplacedByAnother(t *testing.T) {
	t.Parallel()
	i := newIssuing(t)
	i.ca.SetPublic(lab.Public{ReplacedOnce: true})
	cert, err := i.issueKey(t.Context(), issuedName, i.newKey())
	if err != nil {
		t.Fatal(err)
	}
	meta, err := json.Marshal(map[string]any{"issuer_data": cert.Metadata})
	if err != nil {
		t.Fatal(err)
	}
	keys := certmagic.StorageKeys
	for key, data := range map[string][]byte{
		keys.SiteCert(i.IssuerKey(), issuedName): cert.Certificate, keys.SiteMeta(i.IssuerKey(), issuedName): meta,
	} {
		if err := i.Storage.Store(t.Context(), key, data); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := i.issue(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	var statuses []int
	for _, r := range i.ca.Requests("new-order") {
		statuses = append(statuses, r.Status)
	}
	if !slices.Equal(statuses, []int{201, 201, 409, 201}) {
		t.Errorf("orders were answered with %v", statuses)
	}
}

// What acmez refuses before it has asked the CA for anything is no hiccup of the network.
func TestUnknownProfile(t *testing.T) {
	t.Parallel()
	i := newIssuing(t)
	core, logs := observer.New(zap.DebugLevel)
	i.with(zap.New(core), nil)
	i.Profile = "tlsserver"
	began := time.Now()
	i.refuse("unknown profile name 'tlsserver'")
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
	if n := logs.FilterMessage("ACME request failed; trying again").Len(); n != 0 {
		t.Errorf("it was tried again %d times", n)
	}
	if n := i.ca.Count("new-order"); n != 0 {
		t.Errorf("%d orders were asked for", n)
	}
}

// Some seconds after a change of key, frontends of a CA still refuse the new one.
func TestSignatureAfterRollover(t *testing.T) {
	t.Parallel()
	i := newIssuing(t)
	if err := i.issue(t.Context()); err != nil {
		t.Fatal(err)
	}
	i.ca.SetPublic(lab.Public{AccountCache: 2 * time.Second})
	if _, err := i.RollKey(t.Context()); err != nil {
		t.Fatal(err)
	}
	// a Caddy that runs, one that starts now, and the command
	done := make(chan error, 3)
	started := i.another()
	go func() { done <- i.issue(t.Context()) }()
	go func() { _, err := started.Wanted(t.Context(), []string{issuedName}); done <- err }()
	go func() {
		state, err := i.another().AccountStatus(t.Context())
		if err == nil && state.Status != "valid" {
			err = errors.New("the status is " + state.Status + ": " + state.Problem)
		}
		done <- err
	}()
	for range 3 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	refused := func(r lab.Request) bool { return r.Status == 400 }
	if !slices.ContainsFunc(i.ca.Requests(), refused) {
		t.Error("the new key was not refused at first")
	}

	// once more, and the end of the account, within those seconds
	if _, err := i.RollKey(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := i.RollKey(t.Context()); err != nil {
		t.Fatal(err)
	}
	account, err := i.Account(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := i.DeactivateAccount(t.Context(), account.URL); err != nil {
		t.Fatal(err)
	}
	if state, err := i.AccountStatus(t.Context()); err != nil || state.Status != "deactivated" {
		t.Errorf("just after its deactivation the account is %q, %v", state.Status, err)
	}
}
