package operator

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/parking"
)

// ask asks the handlers of an operator.
func ask[T any](t *testing.T, o *Operator, path string) (status int, reply T) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://here"+Prefix+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Client{Transport: o}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&reply); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, reply
}

// all goes through the answers, so many domains at a time, and lists the domains.
func all(t *testing.T, o *Operator, limit int) (domains []string) {
	t.Helper()
	for after := ""; ; {
		status, reply := ask[NamesReply](t, o, fmt.Sprintf("names?limit=%d&after=%s", limit, after))
		if status != http.StatusOK || len(reply.Names) > limit {
			t.Fatalf("status %d with %d names", status, len(reply.Names))
		}
		for _, n := range reply.Names {
			domains = append(domains, n.Domain)
		}
		if after = reply.After; after == "" {
			return domains
		}
	}
}

// The most urgent is first: the domains of the configuration by severity, by the end of their certificates
// and by how long they have waited, then those on demand with a certificate to lose, and the others at last.
func TestNamesAreInTheOrderOfUrgency(t *testing.T) {
	o := newOperator(t)
	now := time.Now()
	until := func(d time.Duration) parking.Certificate { return parking.Certificate{NotAfter: now.Add(d)} }
	one := func(domain string, reason acmepersist.Reason, since time.Duration) parking.Status {
		return parking.Status{Domain: domain, CA: "one", Phase: parking.PhaseHeld, Reason: reason, Since: now.Add(-since)}
	}
	onDemand := func(s parking.Status) parking.Status { s.IsOnDemand = true; return s }
	renews := one("renews.example", acmepersist.ReasonAbsent, time.Hour)
	renews.Certificate = until(time.Hour)
	visited := onDemand(one("visited.example", acmepersist.ReasonAbsent, time.Hour))
	visited.Certificate = until(time.Minute)
	want := []parking.Status{
		one("old-account.example", acmepersist.ReasonAccount, time.Hour), one("account.example", acmepersist.ReasonAccount, time.Minute),
		one("absent.example", acmepersist.ReasonAbsent, time.Minute), renews,
		one("down.example", acmepersist.ReasonCADown, time.Minute),
		{Domain: "wanted.example", CA: "one", Phase: parking.PhaseWanted, Since: now},
		{Domain: "soon.example", Phase: parking.PhaseServed, Certificate: until(time.Hour)},
		{Domain: "served.example", Phase: parking.PhaseServed, Certificate: until(2 * time.Hour)},
		visited, onDemand(one("tenant.example", acmepersist.ReasonAccount, 1000*time.Hour)),
	}
	var domains []string
	mixed := slices.Clone(want)
	slices.Reverse(mixed)
	for _, s := range want {
		domains = append(domains, s.Domain)
	}
	o.Registry = fakeRegistry(mixed)
	for _, limit := range []int{1, 3, 10, 1000} {
		if got := all(t, o, limit); !slices.Equal(got, domains) {
			t.Errorf("by %d the order is %v", limit, got)
		}
	}
	_, reply := ask[NamesReply](t, o, "names?phase=served,wanted&phase=failed")
	if len(reply.Names) != 3 || reply.Names[0].Domain != "wanted.example" || reply.Names[0].Severity != "info" || reply.Names[1].NextAt != (time.Time{}) {
		t.Errorf("chosen by phase are %+v", reply.Names)
	}
	if c := reply.Counts; c.Total != 10 || c.OnDemand != 2 || c.Phases[parking.PhaseHeld] != 7 || c.Severities["error"] != 2 || c.Severities["ok"] != 2 {
		t.Errorf("the counts are %+v", c)
	}
	if _, reply := ask[NamesReply](t, o, "names?reason=account&ca=one"); len(reply.Names) != 3 {
		t.Errorf("chosen by reason are %+v", reply.Names)
	}
}

// Whoever asks for domains has each of them, or an error that says which is not known.
func TestNamesThatAreAskedFor(t *testing.T) {
	o := newOperator(t)
	answer := &acmepersist.Answer{At: time.Now().UTC(), Text: "no record"}
	next := time.Now().Add(time.Hour).UTC().Round(0)
	o.Registry = fakeRegistry{
		{
			Domain: "a.example", CA: "one", Phase: parking.PhaseHeld, Reason: acmepersist.ReasonBudget, Err: errors.New("too often"), Answer: answer, Next: next,
			Record: acmepersist.Record{Name: "_validation-persist.a.example", Value: "value"},
		},
		{Domain: "*.wild.example", CA: "one", Phase: parking.PhaseServed},
	}
	status, reply := ask[NamesReply](t, o, "names?domain=A.example.")
	if status != http.StatusOK || len(reply.Names) != 1 {
		t.Fatalf("%d %+v", status, reply)
	}
	n := reply.Names[0]
	if n.Why != "too often" || n.Code != "budget" || n.Severity != "error" || n.Answer == nil || *n.Answer != *answer || !n.NextAt.Equal(next) || n.Next == "" || n.Do == "" ||
		n.Record == nil || *n.Record != (Missing{Name: "_validation-persist.a.example", Type: "TXT", Value: "value", TTL: TTL}) {
		t.Errorf("it is %+v with the record %+v", n, n.Record)
	}
	if _, reply := ask[NamesReply](t, o, "names?domain=www.wild.example"); len(reply.Names) != 1 || reply.Names[0].Domain != "*.wild.example" {
		t.Errorf("a name that a wildcard serves: %+v", reply.Names)
	}
	if _, reply := ask[NamesReply](t, o, "names?domain=b.example"); len(reply.Names) != 1 || reply.Names[0].Phase != parking.PhaseWanted || !reply.Names[0].OnDemand {
		t.Errorf("a name that nobody has asked for: %+v", reply.Names)
	}
	for path, says := range map[string]string{
		"names?domain=c.example": "did you mean", "names?phase=parked": "there are wanted, waiting", "names?limit=1001": "at most 1000",
		"names?limit=x": "not a number", "names?after=zzz": "give that as it is", "names?domain=-": "cannot get a certificate",
		"names?limit=-1": "limit is -1: give 1 to", "names?severity=foo": "there are ok, info", "names?reason=foo": "there are record_absent",
		"names?ca=foo": "uses the CA foo, but one, two", "names?domain=a.example&ca=two": "not obtained from the CA two", "names?name=a.example": `there is no parameter "name"`,
		"names?domain=other.example": "another issuer for it", "records?domain=c.example": "did you mean", "records?name=c.example": "did you mean",
		"records?domains=x": "takes domain, name, ca", "account?domain=x": "takes ca", "?x=1": "takes none", "health?strict=maybe": "give true or false",
	} {
		status, reply := ask[map[string]any](t, o, path)
		if text := fmt.Sprint(reply["error"]); status == http.StatusOK || !strings.Contains(text, says) {
			t.Errorf("%s: %d %s", path, status, text)
		}
	}
}

// Two answers are one: in one order of urgency, with all counted.
func TestAnswersAreOne(t *testing.T) {
	o := newOperator(t)
	now := time.Now()
	waits := func(domain string, reason acmepersist.Reason, until time.Duration) parking.Status {
		s := parking.Status{Domain: domain, CA: "one", Phase: parking.PhaseHeld, Reason: reason, Since: now}
		if until > 0 {
			s.Certificate = parking.Certificate{NotAfter: now.Add(until)}
		}
		return s
	}
	o.Registry = fakeRegistry{
		waits("a.example", acmepersist.ReasonCADown, time.Hour), waits("b.example", acmepersist.ReasonAccount, 2*time.Hour), waits("c.example", acmepersist.ReasonAccount, time.Hour),
		{Domain: "d.example", CA: "one", Phase: parking.PhaseServed, Certificate: parking.Certificate{NotAfter: now.Add(time.Hour)}},
	}
	_, whole := ask[NamesReply](t, o, "names")
	var joined NamesReply
	for _, domains := range []string{"d.example,a.example", "b.example", "c.example"} {
		_, reply := ask[NamesReply](t, o, "names?domain="+domains)
		joined = joined.Plus(reply)
	}
	if !reflect.DeepEqual(joined, whole) {
		t.Errorf("the parts are\n%+v, and the whole\n%+v", joined, whole)
	}
}

// A platform of ten thousand names has its answer at once.
func BenchmarkNames(b *testing.B) {
	var many fakeRegistry
	for i := range 10_000 {
		many = append(many, parking.Status{Domain: fmt.Sprintf("site%d.example", i), CA: "one", Phase: parking.PhaseServed, Certificate: parking.Certificate{NotAfter: time.Now()}})
	}
	o := &Operator{Registry: many}
	for b.Loop() {
		if reply, err := o.Names(b.Context(), NamesQuery{}); err != nil || len(reply.Names) != defaultNames {
			b.Fatal(len(reply.Names), err)
		}
	}
}

// Whatever reason a status may have can be asked for.
func TestEveryReasonCanBeAskedFor(t *testing.T) {
	for _, r := range acmepersist.Reasons {
		if err := (NamesQuery{Reasons: []string{string(r)}}).check(); err != nil {
			t.Error(err)
		}
	}
	if (NamesQuery{Reasons: []string{"nothing"}}).check() == nil {
		t.Error("a reason that does not exist is no error")
	}
}
