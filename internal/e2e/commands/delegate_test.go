package commands

import (
	"fmt"
	"strings"
	"testing"

	"github.com/dnspersist/caddy-dnspersist/dnspersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
	"github.com/dnspersist/caddy-dnspersist/internal/e2e/harness"
)

// Where names are delegated, records has the CNAME for each owner and the record at its
// target, and check says what each of them still has to do, with and without a running Caddy.
func TestDelegatedNames(t *testing.T) {
	for _, running := range []bool{false, true} {
		t.Run(fmt.Sprint("running: ", running), func(t *testing.T) {
			e := newEnv(t, harness.Options{})
			const zone = "certs.platform.test"
			e.DNS.AddZone(zone)
			none, good, foreign, text := e.Name("none"), e.Name("good"), e.Name("foreign"), e.Name("text")
			names := []string{foreign, good, none, text}
			target := func(name string) string { return record.DelegationLabel(name) + "." + zone }
			alias := func(name, target string) string {
				return fmt.Sprintf("_validation-persist.%s. 3600 IN CNAME %s.", name, target)
			}
			set := func(name string) string {
				return "set a CNAME record at _validation-persist." + name + " that leads to " + target(name)
			}
			e.configure(e.Global() + e.Site(strings.Join(names, ", "), e.Block("delegate_to "+zone)))
			value := e.Value(e.Bind(), false)
			e.ok("probe", "--order", good)
			e.DNS.SetRR(0, alias(good, target(good)))
			e.DNS.SetTXT(0, target(good), value)
			e.DNS.SetRR(0, alias(foreign, "elsewhere.example.test"))
			e.DNS.SetTXT(0, "_validation-persist."+text, "something else")
			var from []string
			if running {
				e.Load(strings.Replace(e.Global(), "admin off", "admin "+e.Admin, 1) + e.Site(strings.Join(names, ", "), e.Block("delegate_to "+zone)))
				from = []string{"--address", e.Admin}
			}
			run := func(status int, args ...string) result {
				t.Helper()
				return e.ends(status, append(args, from...)...)
			}

			r := run(0, "records", "--format", "json")
			sets := make(map[string]dnspersist.RecordSet)
			for _, s := range decode[dnspersist.RecordsReply](t, r.out).Records {
				sets[s.Name] = s
			}
			for _, n := range names {
				if s := sets["_validation-persist."+n]; s.Type != "CNAME" || s.Target != target(n) {
					t.Errorf("%s: %+v", n, s)
				}
				if s := sets[target(n)]; s.Type != "TXT" || len(s.Wanted) != 1 || s.Wanted[0].Value != value {
					t.Errorf("at the target of %s: %+v", n, s)
				}
			}
			if len(sets) != 2*len(names) {
				t.Errorf("%d sets", len(sets))
			}
			for _, said := range []string{"is an alias (CNAME) of elsewhere.example.test", `it has TXT records (["something else"])`} {
				if !strings.Contains(r.err, said) {
					t.Errorf("not said: %s\n%s", said, r.err)
				}
			}
			// what is published is not asked for, and nothing of others is taken away
			r = run(0, "records", "--format", "zone", "--only", "CNAME")
			if !strings.Contains(r.out, alias(none, target(none))) || strings.Count(r.out, "IN CNAME") != 1 || strings.Contains(r.out, "TXT") {
				t.Errorf("CNAME records: %s", r.out)
			}
			r = run(0, "records", "--format", "nsupdate", "--only", "TXT")
			if strings.Count(r.out, "update add") != len(names)-1 || strings.Contains(r.out, "CNAME") || strings.Contains(r.out, "add "+target(good)) {
				t.Errorf("TXT records: %s", r.out)
			}

			states := make(map[string]acmepersist.Checked)
			checks := decode[dnspersist.CheckReply](t, run(2, "check", "--format", "json").out).Checks
			if len(checks) != len(names) {
				t.Errorf("%d checks of %d names", len(checks), len(names))
			}
			for _, c := range checks {
				states[strings.TrimPrefix(c.Name, "_validation-persist.")] = c
			}
			for name, want := range map[string]struct {
				state acmepersist.State
				do    string
			}{
				good:    {acmepersist.StateGood, ""},
				none:    {acmepersist.StateMissing, "let the owner of the domain " + set(none) + ", and publish a TXT record at " + target(none) + " with this value: " + value},
				foreign: {acmepersist.StateWrong, "let the owner of the domain change it to " + target(foreign)},
				text:    {acmepersist.StateWrong, "let the owner of the domain remove the TXT records at _validation-persist." + text + " and " + set(text)},
			} {
				if c := states[name]; c.State != want.state || !strings.Contains(c.Do, want.do) {
					t.Errorf("%s: %s, %q; want %s, %q", name, c.State, c.Do, want.state, want.do)
				}
			}
			e.DNS.SetTXT(0, target(none), value)
			if r := run(2, "check", none); !strings.Contains(r.out, "do      let the owner of the domain "+set(none)+"\n") {
				t.Errorf("the record is published, the CNAME is not:\n%s", r.out)
			}
			// without a configuration the same is printed
			bare := e.ok("records", none, "--format", "zone", "--dns", "never", "--issuer", harness.IssuerName,
				"--account-url", e.CA.Accounts()[0], "--delegate-to", "Certs.Platform.test.")
			if want := alias(none, target(none)) + "\n"; !strings.Contains(bare.out, want) || !strings.Contains(bare.out, target(none)+". 3600 IN TXT "+record.Quote(value)) {
				t.Errorf("without a configuration:\n%s", bare.out)
			}
			if r := e.ends(1, "records", none, "--issuer", harness.IssuerName, "--account-url", e.CA.Accounts()[0], "--delegate-to", "*.x.example"); !strings.Contains(r.err, "--delegate-to: ") {
				t.Errorf("a wildcard: %s", r.err)
			}
			// every label is answered: a mistyped one would look right
			e.DNS.SetTXT(0, "*."+zone, value)
			if r := run(0, "check", good); !strings.Contains(r.out, "wildcard_target: a wildcard record answers for every label of "+zone) {
				t.Errorf("the wildcard is not named:\n%s", r.out)
			}
		})
	}
}

// Names of many domains have one record, also where they are too many for one question to the
// admin endpoint.
func TestManyAtOneTarget(t *testing.T) {
	const n, target = 250, "acme.platform.test"
	e := newEnv(t, harness.Options{})
	e.DNS.AddZone("platform.test")
	e.DNS.AddZone("tenants.test")
	caddyfile := e.Global("on_demand_tls {\n\t\task http://127.0.0.1:1/\n\t}", "cert_issuer dns_persist "+e.Block("dns_challenge_override_domain "+target)) + "https:// {\n\ttls {\n\t\ton_demand\n\t}\n\trespond hi\n}\n"
	e.configure(caddyfile)
	e.Bind()
	e.ok("probe", "--order", "t0.tenants.test")
	e.Load(caddyfile)
	var in strings.Builder
	for i := range n {
		fmt.Fprintf(&in, "t%d.tenants.test\n", i)
	}
	for _, from := range [][]string{{"--config", e.config}, {"--address", e.Admin}} {
		r := e.caddyIn(in.String(), append([]string{"records", "-", "--format", "json"}, from...)...)
		if r.status != 0 || !has(r.err, "not looked up what is published in DNS", "--dns always") {
			t.Fatalf("%v: status %d: %s", from, r.status, r.err)
		}
		aliases := 0
		for _, s := range decode[dnspersist.RecordsReply](t, r.out).Records {
			switch {
			case s.Type == "CNAME" && s.Target == target:
				aliases++
			case s.Name != target || len(s.Wanted) != 1 || len(s.Wanted[0].Identifiers) != n:
				t.Errorf("%v: %s has %d values for %d names", from, s.Name, len(s.Wanted), len(s.Wanted[0].Identifiers))
			}
		}
		if aliases != n {
			t.Errorf("%v: %d CNAMEs", from, aliases)
		}
		r = e.caddyIn(in.String(), append([]string{"check", "-", "--format", "json"}, from...)...)
		if checks := decode[dnspersist.CheckReply](t, r.out).Checks; r.status != 2 || len(checks) != n {
			t.Errorf("%v: status %d, %d checks: %s", from, r.status, len(checks), r.err)
		}
	}
}
