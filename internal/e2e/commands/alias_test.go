package commands

import (
	"strings"
	"testing"

	"github.com/dnspersist/caddy-dnspersist/dnspersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/internal/e2e/harness"
)

// Where somebody has set a CNAME at a validation name nothing can stand beside it: the record
// is to be published where it leads.
func TestRecordAtTheEndOfAnAlias(t *testing.T) {
	for _, recursive := range []bool{false, true} {
		e := newEnv(t, harness.Options{})
		e.DNS.AddZone("target.test")
		name, loop := e.Name("www"), e.Name("loop")
		var more []string
		if recursive {
			more = []string{"check recursive"}
		}
		e.configure(e.Global() + e.Site(name+", "+loop, e.Block(more...)))
		value := e.Value(e.Bind(), false)
		at := "_validation-persist." + name
		e.DNS.SetRR(0, at+". 60 IN CNAME v.target.test.")
		e.DNS.SetRR(0, "v.target.test. 60 IN CNAME w.target.test.")
		e.DNS.SetRR(0, "_validation-persist."+loop+". 60 IN CNAME _validation-persist."+loop+".")

		check := func(status int, name string) acmepersist.Checked {
			t.Helper()
			return decode[dnspersist.CheckReply](t, e.ends(status, "check", name, "--format", "json").out).Checks[0]
		}
		c := check(2, name)
		if c.State != acmepersist.StateMissing || !has(c.Do, "publish a TXT record at w.target.test with this value: "+value, "the CNAME at "+at+" leads to w.target.test") {
			t.Errorf("recursive %t: nothing is published: %s, %q", recursive, c.State, c.Do)
		}
		if r := e.ends(2, "check", name); !recursive && !has(r.out, "servers ns1.", "for w.target.test: no: ") {
			t.Errorf("the servers' lines do not say for what:\n%s", r.out)
		}
		e.DNS.SetTXT(0, "w.target.test", "ca.example; accounturi=https://ca.example/1")
		c = check(2, name)
		if c.State != acmepersist.StateWrong || !has(c.Do, "publish beside what is published a TXT record at w.target.test with this value: ") {
			t.Errorf("recursive %t: another's value is published: %s, %q", recursive, c.State, c.Do)
		}
		if r := e.ok("records", name, "--format", "nsupdate"); strings.Contains(r.out, "update add") || !has(r.err, "left out", "is an alias (CNAME) of w.target.test") {
			t.Errorf("recursive %t: records of a name in another zone:\n%s%s", recursive, r.out, r.err)
		}
		if r := e.ok("records", name, "--format", "nsupdate", "--follow-aliases"); !has(r.out, "update add w.target.test. ") {
			t.Errorf("recursive %t: records:\n%s%s", recursive, r.out, r.err)
		}
		e.DNS.SetTXT(0, "w.target.test", value)
		check(0, name)

		c = check(2, loop)
		if c.State != acmepersist.StateBlocked || !recursive && !has(c.Do, "CNAME loop", "remove the CNAME") {
			t.Errorf("recursive %t: loop: %s, %q", recursive, c.State, c.Do)
		}
		for _, d := range c.Diagnostics {
			if d.Code == "alias_ok" {
				t.Errorf("a loop is called fine: %+v", d)
			}
		}
		if r := e.ends(1, "records", loop, "--format", "octodns"); !has(r.err, "might be lost") || r.out != "" {
			t.Errorf("recursive %t: records of a loop: %q %s", recursive, r.out, r.err)
		}
	}
}
