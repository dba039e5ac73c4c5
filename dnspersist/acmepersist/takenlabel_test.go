package acmepersist_test

import (
	"strings"
	"testing"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
)

// A label that others have is not remembered as a name's place: what is printed for it, without a look
// at DNS as well, is its own label.
func TestTakenLabelIsNotRemembered(t *testing.T) {
	t.Parallel()
	n := newTenants(t, nil)
	n.dns.SetRR(0, "login."+platform+". 300 IN A 203.0.113.8")
	n.alias("tenant.example.test", "login."+platform)
	for range 2 {
		if err := n.issueFor(t.Context(), "tenant.example.test"); err == nil || !strings.Contains(err.Error(), "change it to "+labelOf("tenant.example.test")) {
			t.Error(err)
		}
	}
	checks, err := n.Checks(t.Context(), []string{"tenant.example.test"})
	if err != nil {
		t.Fatal(err)
	}
	if at := checks[0].Place(); at != labelOf("tenant.example.test") {
		t.Errorf("its record belongs at %s", at)
	}
	c := checks[0].Look(t.Context(), false)
	if c.State != acmepersist.StateWrong || !strings.Contains(c.Do, "change it to "+labelOf("tenant.example.test")) || c.AtTarget.Name != labelOf("tenant.example.test") {
		t.Errorf("%s, %q, %+v", c.State, c.Do, c.AtTarget)
	}
}
