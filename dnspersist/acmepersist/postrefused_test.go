package acmepersist_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"github.com/dnspersist/caddy-dnspersist/internal/lab"
)

// A CA that does not take the post of a challenge is not waited for until the order's time is
// over: what it said is the error, and the order is kept for the next attempt.
func TestPostThatTheCARefuses(t *testing.T) {
	t.Parallel()
	i := newIssuing(t)
	i.ca.Inject(lab.Fault{Step: "challenge", Status: http.StatusForbidden, Type: acme.ProblemTypeNamespace + "unauthorized", Detail: "not today", Times: 20})
	began := time.Now()
	err := i.issue(t.Context())
	if err == nil || !strings.Contains(err.Error(), "not today") || !strings.Contains(err.Error(), "asking the CA to validate") {
		t.Errorf("the error is %v", err)
	}
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("the attempt took %s", took)
	}
	i.ca.ClearFaults()
	if err := i.issue(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := len(i.ca.Orders()); n != 1 {
		t.Errorf("%d orders were made, want 1", n)
	}
}
