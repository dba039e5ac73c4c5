package acmepersist

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/ca"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/internal/memorystorage"
)

// noted is an Observer that keeps what it is told.
type noted struct {
	events []Event
	took   []time.Duration
	// notices are kinds.
	notices []NoticeKind
}

func (n *noted) Happened(e Event)          { n.events = append(n.events, e) }
func (n *noted) Issued(took time.Duration) { n.took = append(n.took, took) }
func (n *noted) Records(bool, Records)     {}
func (n *noted) Noticed(notice Notice)     { n.notices = append(n.notices, notice.Kind) }

// What comes of a request for an order is told apart by whose turn it is next.
func TestOrderEvents(t *testing.T) {
	problem := acme.Problem{Type: acme.ProblemTypeNamespace + "rejectedIdentifier", Status: 400}
	for want, err := range map[Event]error{
		EventOrderMade:    nil,
		EventOrderRefused: fmt.Errorf("making the order: %w", problem),
		EventOrderLimited: fmt.Errorf("making the order: %w", &ca.RateLimitedError{Err: problem}),
		EventOrderFailed:  &ca.DownError{Err: problem},
	} {
		if got := orderEvent(err); got != want {
			t.Errorf("%v is %d, want %d", err, got, want)
		}
	}
	if got := orderEvent(errors.New("connection reset")); got != EventOrderFailed {
		t.Errorf("a lost connection is %d", got)
	}
}

// What a conversation shows of the CA and of the account is reported, and nothing that it does not show.
func TestReached(t *testing.T) {
	lost := fmt.Errorf("an attempt: %w", &AccountError{Err: errors.New("gone")})
	for _, c := range []struct {
		what     string
		err      error
		answered bool
		account  string
		want     []Event
	}{
		{"a certificate", nil, true, "https://ca.test/1", []Event{EventCAAnswered, EventAccountUsable}},
		{"an answer from memory", errors.New("waits"), false, "", nil},
		{"a CA that is down", &ca.DownError{Err: errors.New("503")}, false, "", []Event{EventCADown}},
		{"one that goes down after the order", &ca.DownError{Err: errors.New("503")}, true, "https://ca.test/1", []Event{EventCADown, EventAccountUsable}},
		{"a lost account", lost, true, "", []Event{EventCAAnswered, EventAccountLost}},
		{"one that is lost after it was confirmed", lost, true, "https://ca.test/1", []Event{EventCAAnswered, EventAccountLost}},
		{"a record that is missing", errors.New("absent"), true, "", []Event{EventCAAnswered}},
	} {
		n := new(noted)
		New(Config{CA: "https://ca.test/directory", Storage: memorystorage.New(), Observer: n}).reached(c.err, c.answered, c.account)
		if !slices.Equal(n.events, c.want) {
			t.Errorf("%s is told as %v, want %v", c.what, n.events, c.want)
		}
		isAbout := func(e Event, kind NoticeKind) bool {
			return slices.Contains(n.events, e) == slices.Contains(n.notices, kind)
		}
		if !isAbout(EventAccountLost, NoticeAccountLost) || !isAbout(EventAccountUsable, NoticeAccountUsable) {
			t.Errorf("%s is noticed as %v", c.what, n.notices)
		}
	}
}

// Whoever asks for the account reports what the CA answers: that it is lost, and that it is accepted again.
func TestAnAccountIsReportedByWhoeverAsksForIt(t *testing.T) {
	const day = 24 * time.Hour
	for what, ask := range map[string]func(*trial) error{
		"a look at the record": func(r *trial) error { return r.LookAtNames(r.t.Context(), day) },
		"a check": func(r *trial) error {
			_, err := r.Checks(r.t.Context(), []string{"www.example.test"})
			return err
		},
		"the status of the account": func(r *trial) error {
			state, err := r.AccountStatus(r.t.Context())
			if err == nil && state.Status != acme.StatusValid {
				err = &AccountError{Err: errors.New(state.Status)}
			}
			return err
		},
		"the directory": func(r *trial) error { return r.ReadDirectory(r.t.Context()) },
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newTrial(t)
				r.dns.set(wwwName, wwwValue)
				r.succeeds()
				r.hasCertificate(day, 89*day)
				n := new(noted)
				time.Sleep(day)
				r.dns.set(wwwName)
				asks := func(problem string) error {
					n.events = nil
					r.Issuer = New(r.Config) // as after a restart
					r.Observer = n
					for range 10 {
						r.ca.answer("account", answer{status: 400, problem: problem})
						r.ca.answer("new-account", answer{status: 400, problem: problem})
					}
					if problem == "" {
						r.ca.answers = make(map[string][]answer)
					}
					return ask(r)
				}
				if err := asks("accountDoesNotExist"); !errors.As(err, new(*AccountError)) || !slices.Contains(n.events, EventAccountLost) || slices.Contains(n.events, EventAccountUsable) {
					t.Errorf("told are %v: %v", n.events, err)
				}
				time.Sleep(2 * day)
				if err := asks(""); err != nil || !slices.Contains(n.events, EventAccountUsable) || slices.Contains(n.events, EventAccountLost) {
					t.Errorf("told are %v: %v", n.events, err)
				}
				for range 30 {
					r.ca.answer("dir", answer{status: 503})
				}
				time.Sleep(2 * day)
				n.events, r.Issuer = nil, New(r.Config)
				if err := ask(r); err == nil || !slices.Equal(n.events, []Event{EventCADown}) {
					t.Errorf("told are %v: %v", n.events, err)
				}
			})
		})
	}
}

// The first end is that of a record which somebody still has a certificate by: looked at lately, or new. What
// tenants have is told by itself, and what nobody serves not at all.
func TestRecordsSeen(t *testing.T) {
	now := time.Now()
	old, soon, later := now.Add(-100*time.Hour), now.Add(time.Hour), now.Add(2*time.Hour)
	configured, tenants := New(Config{CA: "https://ca.test/directory", Storage: memorystorage.New()}), New(Config{CA: "https://ca.test/directory", Storage: memorystorage.New(), OnDemand: true})
	run := &lookRun{every: 24 * time.Hour, serving: func(domain string) *Issuer {
		switch domain {
		case "ours.test":
			return configured
		case "tenant.test":
			return tenants
		}
		return nil
	}}
	accepted := func(at time.Time) []state.AcceptedValue { return []state.AcceptedValue{{Value: "v", At: at}} }
	ours := []string{"left.test", "ours.test"}
	names := []state.Name{
		{Name: "for-ever", Identifiers: ours, LookedAt: now, Accepted: accepted(old)},
		{Name: "ended", Identifiers: ours, LookedAt: old, LookedStatus: propagation.StatusAbsent, Accepted: accepted(old), EndsAt: soon},
		{Name: "removed", Identifiers: []string{"left.test"}, LookedAt: now, LookedStatus: propagation.StatusAbsent, Accepted: accepted(old), EndsAt: soon},
		{Name: "tenant", Identifiers: []string{"tenant.test"}, LookedAt: now, LookedStatus: propagation.StatusAbsent, Accepted: accepted(old), EndsAt: soon},
		{Name: "looked-at", Identifiers: ours, LookedAt: now, LookedStatus: propagation.StatusConfirming, Accepted: accepted(old), EndsAt: later},
		{Name: "found-since", Identifiers: ours, LookedAt: now.Add(-time.Hour), LookedStatus: propagation.StatusAbsent, Accepted: accepted(now)},
	}
	seen := run.records(t.Context(), names)
	if got := seen[false]; !got.Ends.Equal(later) || len(got.NotReady) > 0 {
		t.Errorf("seen are %v, want an end at %s and nothing that is not ready", got, later)
	}
	if got := seen[true]; !got.Ends.Equal(soon) || got.NotReady[propagation.StatusAbsent] != 1 {
		t.Errorf("of tenants are seen %v", got)
	}
	names = append(names, state.Name{Name: "new", Identifiers: ours, Accepted: accepted(now), EndsAt: soon},
		state.Name{Name: "gone", Identifiers: ours, LookedAt: now, LookedStatus: propagation.StatusAbsent, Accepted: accepted(old)})
	if got := run.records(t.Context(), names)[false]; !got.Ends.Equal(soon) || got.NotReady[propagation.StatusAbsent] != 1 {
		t.Errorf("with a new one and one that is gone are seen %v", got)
	}
	if got := run.records(t.Context(), names[:2])[false]; !got.Ends.IsZero() {
		t.Errorf("of records that do not end it is %s", got.Ends)
	}
}

// The time to the certificate begins when the record was complete, also if the CA's answer came while
// nobody waited for it: what is kept of the look has no more than its time.
func TestCompleteSince(t *testing.T) {
	looked, since := time.Now().Add(-time.Minute), time.Now().Add(-time.Hour)
	for _, c := range []struct {
		report *propagation.Report
		want   time.Time
	}{
		{nil, time.Time{}},
		{&propagation.Report{Status: propagation.StatusPartial, Since: since, When: looked}, time.Time{}},
		{&propagation.Report{Status: propagation.StatusReady, Since: since, When: looked}, since},
		{&propagation.Report{Status: propagation.StatusReady, When: looked}, looked},
	} {
		a := attempt{facts: facts{report: c.report}}
		if got := a.facts.completeSince(); !got.Equal(c.want) {
			t.Errorf("%+v: since %s, want %s", c.report, got, c.want)
		}
	}
}

// What an attempt does is told once, however many attempts it takes until somebody sees it.
func TestWhatAttemptsTell(t *testing.T) {
	for name, c := range map[string]struct {
		do   func(*trial)
		want []Event
		took time.Duration // the least
	}{
		"a certificate": {func(r *trial) {
			r.dns.set(wwwName, wwwValue)
			r.succeeds()
		}, []Event{EventOrderMade, EventValid}, 0},
		"a record that is missing": {func(r *trial) { r.holds(ReasonAbsent) }, nil, 0},
		"a refusal": {func(r *trial) {
			r.dns.set(wwwName, wwwValue)
			r.ca.verdict = "unauthorized"
			r.holds(ReasonRejected)
		}, []Event{EventOrderMade, EventRefused}, 0},
		"a fault inside the CA": {func(r *trial) {
			r.dns.set(wwwName, wwwValue)
			r.ca.verdict = "serverInternal"
			r.holds(ReasonRejected)
		}, []Event{EventOrderMade, EventCAFault}, 0},
		"a yes that came while nobody looked": {func(r *trial) {
			r.asksInVain()
			time.Sleep(time.Hour)
			r.holds(ReasonProcessing)
			r.ca.verdict = "valid"
			r.succeeds()
		}, []Event{EventOrderMade, EventValid, EventOrderMade, EventValid}, time.Hour}, // those of another domain before
		"an order that is ready, and a CSR that did not go through": {func(r *trial) {
			r.dns.set(wwwName, wwwValue)
			for range 30 {
				r.ca.answer("certificate", answer{status: 404, problem: "malformed"})
			}
			r.fails()
			r.ca.answers["certificate"] = nil
			r.succeeds()
		}, []Event{EventOrderMade, EventValid}, 0},
		"an order that cannot be read after its validation": {func(r *trial) {
			r.dns.set(wwwName, wwwValue)
			r.ca.asking = func(step string) {
				if step == "authz" { // from then on the order cannot be read
					r.ca.answers["finalize"] = []answer{{status: 403, problem: "orderNotReady"}}
					r.ca.answers["order"] = slices.Repeat([]answer{{status: 404, problem: "malformed"}}, 20)
				}
			}
			r.fails()
			r.ca.answers["order"] = nil
			r.ca.asking = nil
			r.succeeds()
		}, []Event{EventOrderMade, EventValid}, 0},
		"a CA that never decides": {func(r *trial) {
			r.asksInVain()
			time.Sleep(13 * time.Hour)
			r.fails()
		}, []Event{EventOrderMade, EventValid, EventOrderMade, EventUndecided}, 0},
		"a certificate that cannot wait": {func(r *trial) {
			r.hasCertificate(89*24*time.Hour, 24*time.Hour)
			r.dns.setAt(0, wwwName, wwwValue)
			r.succeeds()
		}, []Event{EventOrderMade, EventAskedEarly, EventValid}, 0},
		"an order that is refused": {func(r *trial) {
			r.dns.set(wwwName, wwwValue)
			r.ca.answer("new-order", answer{status: 400, problem: "rejectedIdentifier"})
			r.fails()
		}, []Event{EventOrderRefused}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := new(noted)
				r := newTrial(t)
				r.knowsTheCA()
				r.Observer = n
				c.do(r)
				events := slices.DeleteFunc(n.events, func(e Event) bool { return e > EventAskedEarly })
				if !slices.Equal(events, c.want) {
					t.Errorf("told are %v, want %v", events, c.want)
				}
				if c.took > 0 && n.took[len(n.took)-1] < c.took {
					t.Errorf("it took %v, want at least %s", n.took, c.took)
				}
			})
		})
	}
}
