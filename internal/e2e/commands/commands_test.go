package commands

import (
	"strings"
	"testing"

	"github.com/dnspersist/caddy-dnspersist/dnspersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/internal/e2e/harness"
	"github.com/dnspersist/caddy-dnspersist/internal/lab"
)

// The way of a person with one site, in each dialect: with a configuration and no Caddy, then
// with a Caddy that runs.
func TestFromNothingToGood(t *testing.T) {
	for _, d := range []struct {
		name  string
		probe string // offered before any order
	}{{"01", acmepersist.OfferedUnknown}, {"02", acmepersist.OfferedYes}} {
		t.Run(d.name, func(t *testing.T) {
			dialect, err := lab.ParseDialect(d.name)
			if err != nil {
				t.Fatal(err)
			}
			e := newEnv(t, harness.Options{CA: lab.CAConfig{Dialect: dialect}})
			name := e.Name("www")
			e.configure(e.Global() + e.Site(name+", *."+name, e.Block()))

			status := 2
			if d.probe == acmepersist.OfferedYes {
				status = 0
			}
			probe := decode[dnspersist.ProbeReply](t, e.ends(status, "probe", "--format", "json").out)
			if len(probe.CAs) != 1 || probe.CAs[0].Offered != d.probe {
				t.Errorf("probe %+v", probe)
			}
			if r := e.ends(1, "records"); !strings.Contains(r.err, "no ACME account is bound yet") || !strings.Contains(r.err, "account --register") {
				t.Errorf("records without an account: %s", r.err)
			}
			if r := e.ends(2, "account"); !strings.Contains(r.err, "--register") {
				t.Errorf("no account: %s", r.err)
			}
			account := decode[dnspersist.AccountReply](t, e.ok("account", "--register", "--json").out)
			if len(account.Accounts) != 1 || account.Accounts[0].Status != "valid" || len(e.CA.Accounts()) != 1 {
				t.Fatalf("account %+v", account)
			}
			if n := len(e.CA.Orders()); n != 0 {
				t.Errorf("%d orders were made", n)
			}
			if r := e.ok("records"); strings.Contains(r.err, "has not shown yet") != (d.name == "01") {
				t.Errorf("before any order: %s", r.err)
			}
			probe = decode[dnspersist.ProbeReply](t, e.ok("probe", "--order", "probe."+name, "--format", "json").out)
			if probe.CAs[0].Offered != acmepersist.OfferedYes || len(probe.CAs[0].IssuerDomainNames) == 0 {
				t.Errorf("probe by order %+v", probe)
			}

			if r := e.ok("records"); strings.Contains(r.err, "has not shown yet") {
				t.Errorf("after an order: %s", r.err)
			}

			// one record for the name and its wildcard
			records := decode[dnspersist.RecordsReply](t, e.ok("records", "--format", "json").out)
			if len(records.Records) != 1 || len(records.Records[0].Wanted) != 1 {
				t.Fatalf("records %+v", records)
			}
			w := records.Records[0].Wanted[0]
			if len(w.Identifiers) != 2 || !strings.HasSuffix(w.Value, "policy=wildcard") || records.Records[0].DNS == nil || len(records.Records[0].DNS.Add) != 1 {
				t.Errorf("record %+v", records.Records[0])
			}
			if r := e.ends(2, "check"); !strings.Contains(r.out, "missing") || !strings.Contains(r.out, w.Value) || !strings.Contains(r.out, "publish ") {
				t.Errorf("check: %s", r.out)
			}
			// the same without anything in reach
			bare := []string{"records", name, "*." + name, "--format", "json", "--dns", "never", "--account-url", w.Account, "--issuer", account.Accounts[0].IssuerDomainNames[0]}
			if d.name == "02" {
				bare = append(bare, "--thumbprint", account.Accounts[0].Thumbprint, "--account-hash-prefix", account.Accounts[0].AccountHashPrefix)
			}
			made := decode[dnspersist.RecordsReply](t, e.ok(bare...).out)
			if made.Records[0].Wanted[0].Value != w.Value {
				t.Errorf("made without a configuration: %s, want %s", made.Records[0].Wanted[0].Value, w.Value)
			}

			e.PublishOn(1, name, w.Value)
			if r := e.ends(2, "check"); !strings.Contains(r.out, "partial") {
				t.Errorf("check with one server: %s", r.out)
			}
			e.Publish(name, w.Value)
			check := decode[dnspersist.CheckReply](t, e.ok("check", "--format", "json").out)
			if len(check.Checks) != 1 || check.Checks[0].State != acmepersist.StateGood || len(check.Checks[0].Verdicts) != 2 || len(check.Checks[0].Report.Servers) != 2 {
				t.Errorf("check %+v", check)
			}
			if r := e.ok("records"); !strings.Contains(r.out, "published") {
				t.Errorf("records: %s", r.out)
			}
			if r := e.ok("check", "--ask", name); !strings.Contains(r.out, "has accepted") {
				t.Errorf("asked: %s", r.out)
			}
			if orders := len(e.CA.Orders()); orders != 2 { // the probe's and this one
				t.Errorf("%d orders", orders)
			}

			// with a Caddy that runs, the answers are the same
			e.Load(e.Global() + e.Site(name+", *."+name, e.Block()))
			e.WaitTrusted(name, harness.Soon)
			for _, args := range [][]string{{"records", "--format", "json"}, {"account", "--json"}, {"probe", "--format", "json"}} {
				here, there := e.ok(args...).out, e.ok(append(args, "--address", e.Admin)...).out
				if here != there {
					t.Errorf("%v: from the configuration\n%s\nfrom Caddy\n%s", args, here, there)
				}
			}
			for _, args := range [][]string{{"check", name, "--format", "json"}, {"check", "--address", e.Admin, "--format", "json"}} {
				live := decode[dnspersist.CheckReply](t, e.ok(args...).out)
				if len(live.Checks) != 1 || live.Checks[0].State != acmepersist.StateGood || live.Checks[0].NeededBy.IsZero() {
					t.Errorf("%v: %+v", args, live)
				}
			}
			// a new key: in -01 nothing changes in DNS, in -02 the old record is still presumed good
			roll := e.ok("account", "rollover")
			if d.name == "01" != strings.Contains(roll.err, "no record in DNS has to change") || d.name == "02" != strings.Contains(roll.out, "_validation-persist."+name) {
				t.Errorf("rollover: %s\n%s", roll.out, roll.err)
			}
			want := map[string]acmepersist.State{"01": acmepersist.StateGood, "02": acmepersist.StateDepends}[d.name]
			for _, args := range [][]string{{"check", "--format", "json"}, {"check", "--address", e.Admin, "--format", "json"}} {
				if after := decode[dnspersist.CheckReply](t, e.ok(args...).out); after.Checks[0].State != want {
					t.Errorf("%v after the rollover: %+v", args, after)
				}
			}

			// a tenant that no configuration lists
			if r := e.ends(1, "records", "tenant.example.net", "--address", e.Admin); !strings.Contains(r.err, "no dns_persist issuer of the configuration serves tenant.example.net") {
				t.Errorf("unknown name: %s", r.err)
			}
		})
	}
}
