package operator

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/managed"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/parking"
)

// fakeIssuer is an issuer that refuses a name, and is not in use.
type fakeIssuer struct{ ca, refuses string }

func (f fakeIssuer) Directory() string { return f.ca }
func (f fakeIssuer) Identity() string  { return f.ca }
func (f fakeIssuer) ACME() (*acmepersist.Issuer, error) {
	return nil, errors.New("not in use")
}

func (f fakeIssuer) IsOnDemand() bool { return true }

func (f fakeIssuer) Refuses(name string) error {
	if name == f.refuses {
		return errors.New("refused")
	}
	return nil
}

// fakeOwner is an issuer in a Caddy that runs.
type fakeOwner struct {
	parking.Owner
	fakeIssuer
}

func (f fakeOwner) IsOnDemand() bool { return false }

// fakeRegistry is where domains are.
type fakeRegistry []parking.Status

func (r fakeRegistry) Snapshot() []parking.Status { return slices.Clone(r) }
func (r fakeRegistry) Poke([]string) int          { return len(r) }

func (r fakeRegistry) Of(domain string) []parking.Status {
	return slices.DeleteFunc(slices.Clone(r), func(s parking.Status) bool { return s.Domain != domain })
}

// newOperator is one for a configuration of two CAs, beside which a tenant waits.
func newOperator(t *testing.T) *Operator {
	t.Helper()
	c, err := managed.ReadConfig([]byte(`{"apps":{"tls":{"certificates":{"automate":["a.example","bad.example","b.example","other.example"]},"automation":{"policies":[
		{"subjects":["a.example","bad.example"],"issuers":["one"]},{"subjects":["b.example"],"issuers":["one","two"]},{"subjects":["other.example"]}]}}}}`))
	if err != nil {
		t.Fatal(err)
	}
	p, err := managed.Offline(c, func(p managed.PolicyConfig) (all []Issuer, err error) {
		for _, raw := range p.IssuersRaw {
			all = append(all, fakeIssuer{strings.Trim(string(raw), `"`), "bad.example"})
		}
		return all, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return &Operator{
		Plan: func() managed.Plan[Issuer] { return p },
		Registry: fakeRegistry{
			{Domain: "tenant.example", Reason: acmepersist.ReasonAbsent, Phase: parking.PhaseWaiting, Owner: fakeOwner{fakeIssuer: fakeIssuer{ca: "two"}}},
			{Domain: "elsewhere.example", Reason: acmepersist.ReasonAccount, Phase: parking.PhaseHeld},
		},
	}
}

// All names are those of the configuration that can be validated, and what waits beside them, for
// each issuer together; given names are taken or refused.
func TestGroups(t *testing.T) {
	o := newOperator(t)
	groups, err := o.groups("", nil)
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string][]string)
	for _, g := range groups {
		got[g.issuer.Directory()] = g.names
	}
	if len(got) != 2 || !slices.Equal(got["one"], []string{"a.example", "b.example"}) || !slices.Equal(got["two"], []string{"b.example", "tenant.example"}) {
		t.Errorf("the groups are %v", got)
	}
	if want := []string{"a.example", "b.example", "bad.example", "tenant.example"}; !slices.Equal(o.Managed(), want) {
		t.Errorf("managed are %q, want %q", o.Managed(), want)
	}
	if got := o.ManagedAt("two"); !slices.Equal(got, []string{"b.example"}) {
		t.Errorf("managed at one of the CAs are %q", got)
	}
	if got := o.Unsupported(); len(got) != 1 {
		t.Errorf("unsupported are %v", got)
	}
	var unknown *UnknownNameError
	if _, err := o.groups("", []string{"a.example", "a.exampel"}); !errors.As(err, &unknown) || unknown.Near != "a.example" {
		t.Errorf("a mistyped name: %v", err)
	}
}

// Commands have the answers of the handlers within their own process, and nothing else.
func TestRoundTrip(t *testing.T) {
	o := newOperator(t)
	ask := func(ctx context.Context, method, path string) (int, map[string]any, error) {
		req, err := http.NewRequestWithContext(ctx, method, "http://here"+Prefix+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := (&http.Client{Transport: o}).Do(req)
		if err != nil {
			return 0, nil, err
		}
		defer resp.Body.Close()
		var answer map[string]any
		_ = json.NewDecoder(resp.Body).Decode(&answer)
		return resp.StatusCode, answer, nil
	}
	if status, answer, err := ask(t.Context(), http.MethodGet, ""); err != nil || status != 200 || answer["managed"] != 4.0 || answer["waiting"] != 2.0 {
		t.Errorf("%d %v %v", status, answer, err)
	}
	if status, answer, err := ask(t.Context(), http.MethodGet, "records?name=x.test"); err != nil || status == 200 || !strings.Contains(answer["error"].(string), "x.test") {
		t.Errorf("an unknown name: %d %v %v", status, answer, err)
	}
	for _, path := range []string{"account/export", "order", "records"} {
		if status, _, err := ask(t.Context(), http.MethodPost, path); err != nil || status != http.StatusNotFound {
			t.Errorf("POST %s: %d %v", path, status, err)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := ask(ended, http.MethodGet, "records"); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
}
