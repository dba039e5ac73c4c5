package acmepersist_test

import (
	"strings"
	"testing"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
)

// CAA records that CAs read in different ways are said, and stop nothing; those that no CA
// takes for a permission do.
func TestCAARecordsThatDepend(t *testing.T) {
	t.Parallel()
	i := newIssuing(t)
	look := func() acmepersist.Checked {
		t.Helper()
		checks, err := i.another().Checks(t.Context(), []string{issuedName})
		if err != nil {
			t.Fatal(err)
		}
		return checks[0].Look(t.Context(), true)
	}
	const doubtful, broken = "Pebble.LetsEncrypt.ORG.", "pebble.letsencrypt.org; validationmethods=dns-01, dns-persist-01"
	i.dns.SetRR(0, issuedName+`. CAA 0 issue "`+doubtful+`"`)
	c := look()
	found := false
	for _, d := range c.Diagnostics {
		found = found || d.Code == acmepersist.CodeCAADepends && strings.Contains(d.Text, issuedName) && strings.Contains(d.Text, "in other letters")
	}
	if c.State != acmepersist.StateDepends || !c.State.IsOK() || !found || c.CAA != "" || !strings.Contains(c.Do, doubtful) {
		t.Errorf("%s, %q, %q, %v", c.State, c.Do, c.CAA, c.Diagnostics)
	}
	if err := i.issue(t.Context()); err != nil {
		t.Errorf("no certificate: %v", err)
	}

	i.dns.ClearName(0, issuedName)
	i.dns.SetRR(0, issuedName+`. CAA 0 issue "`+broken+`"`)
	if c := look(); c.State != acmepersist.StateForbidden || !strings.Contains(c.CAA, "allows nobody") {
		t.Errorf("%s, %q", c.State, c.CAA)
	}
}
