package commands

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dnspersist/caddy-dnspersist/dnspersist"
	"github.com/dnspersist/caddy-dnspersist/internal/e2e/harness"
	"github.com/dnspersist/caddy-dnspersist/internal/lab"
)

// In the dialect of deployed CAs (draft -01) a record names the account's URL and no key: the
// one record serves every machine that the account is brought to, and outlives its key.
func TestAccountMovesInDeployedDialect(t *testing.T) {
	e := newDeployedEnv(t)
	name := e.Name("www")
	caddyfile := e.Global() + e.Site(name, e.Block())
	e.configure(caddyfile)
	account := decode[dnspersist.AccountReply](t, e.ok("account", "--register", "--json").out).Accounts[0]
	value := onlyValue(t, e.ok("records", "--format", "json").out)
	if value != e.Value(account.URL, false) {
		t.Fatalf("the record is %q, want %q", value, e.Value(account.URL, false))
	}
	old := filepath.Join(t.TempDir(), "account.json")
	e.ok("account", "export", "--output", old)

	// another machine has the account, and asks for the same record
	there := e.elsewhere(t, caddyfile)
	if r := e.caddy("account", "import", old, "--config", there.config); r.status != 0 || !has(r.err, account.URL) {
		t.Fatalf("import: %d %s", r.status, r.err)
	}
	if got := onlyValue(t, e.caddy("records", "--format", "json", "--config", there.config).out); got != value {
		t.Errorf("elsewhere the record is %q, want %q", got, value)
	}

	// the key changes here: no record has to, and a new export replaces the old one's key
	if r := e.ok("account", "rollover"); r.out != "" || !has(r.err, account.URL, "no record in DNS has to change") {
		t.Errorf("rollover says %q and %q", r.out, r.err)
	}
	if got := onlyValue(t, e.ok("records", "--format", "json").out); got != value {
		t.Errorf("after the rollover the record is %q, want %q", got, value)
	}
	third := e.elsewhere(t, caddyfile)
	if r := e.caddy("account", "import", old, "--config", third.config); r.status != 1 || strings.Contains(r.out+r.err, "imported") {
		t.Errorf("a former key was imported: %d %s", r.status, r.err)
	}
	fresh := e.ok("account", "export").out
	if r := e.caddyIn(fresh, "account", "import", "-", "--config", third.config); r.status != 0 || !has(r.err, account.URL) {
		t.Fatalf("import of the new key: %d %s", r.status, r.err)
	}

	// the machine that got the new key obtains a certificate by the record of the first
	e.Publish(name, value)
	e.Load(third.caddyfile)
	e.WaitTrusted(name, harness.Soon)
	e.AssertClean(1)
}

// An account that was ended is ended wherever it was brought to, and nothing replaces it.
func TestAccountEndsInDeployedDialect(t *testing.T) {
	e := newDeployedEnv(t)
	name := e.Name("www")
	caddyfile := e.Global() + e.Site(name, e.Block())
	e.configure(caddyfile)
	if r := e.ends(1, "account", "deactivate"); !has(r.err, "there is nothing to deactivate", e.CA.Directory()) {
		t.Errorf("deactivate of nothing: %s", r.err)
	}
	account := decode[dnspersist.AccountReply](t, e.ok("account", "--register", "--json").out).Accounts[0]
	exported := e.ok("account", "export").out
	there, late := e.elsewhere(t, caddyfile), e.elsewhere(t, caddyfile)
	if r := e.caddyIn(exported, "account", "import", "-", "--config", there.config); r.status != 0 {
		t.Fatalf("import: %d %s", r.status, r.err)
	}
	e.Publish(name, e.Value(account.URL, false))
	e.ok("check")

	for _, yes := range [][]string{nil, {"--yes", account.URL + "0"}, {"--yes", "yes"}} {
		if r := e.ends(1, append([]string{"account", "deactivate"}, yes...)...); !has(r.err, account.URL) {
			t.Errorf("deactivate %v: %s", yes, r.err)
		}
	}
	e.ok("account")
	if r := e.ok("account", "deactivate", "--yes", account.URL); !has(r.err, account.URL, "is deactivated") {
		t.Errorf("deactivate says %s", r.err)
	}

	// the record is published as before, and is worth nothing
	if r := e.ends(1, "check"); !has(r.err, "deactivated") {
		t.Errorf("check says %q and %q", r.out, r.err)
	}
	for what, config := range map[string]string{"here": e.config, "there": there.config} {
		r := e.caddy("account", "--register", "--json", "--config", config)
		if r.status == 0 || !has(r.out+r.err, account.URL, "deactivated") {
			t.Errorf("the account %s: %d %q %q", what, r.status, r.out, r.err)
		}
	}
	if r := e.caddyIn(exported, "account", "import", "-", "--config", late.config); r.status != 1 || !has(r.err, account.URL) {
		t.Errorf("import of a dead account: %d %q", r.status, r.err)
	}
	if n := len(e.CA.Accounts()); n != 1 {
		t.Errorf("the CA has %d accounts, want 1", n)
	}
}

// newDeployedEnv is an environment whose CA speaks draft -01.
func newDeployedEnv(t *testing.T) *env {
	t.Helper()
	dialect, err := lab.ParseDialect("01")
	if err != nil {
		t.Fatal(err)
	}
	return newEnv(t, harness.Options{CA: lab.CAConfig{Dialect: dialect}})
}

// machine is a configuration with a storage of its own.
type machine struct{ caddyfile, config string }

// elsewhere is the same configuration on a machine with an empty storage.
func (e *env) elsewhere(t *testing.T, caddyfile string) machine {
	t.Helper()
	dir := t.TempDir()
	m := machine{config: filepath.Join(dir, "Caddyfile")}
	m.caddyfile = strings.ReplaceAll(caddyfile, e.Storage, filepath.ToSlash(filepath.Join(dir, "storage")))
	if err := os.WriteFile(m.config, []byte(m.caddyfile), 0o600); err != nil {
		t.Fatal(err)
	}
	return m
}

// onlyValue is the one value that the JSON of the command records asks for.
func onlyValue(t *testing.T, text string) string {
	t.Helper()
	records := decode[dnspersist.RecordsReply](t, text).Records
	if len(records) != 1 || len(records[0].Wanted) != 1 {
		t.Fatalf("not one value: %s", text)
	}
	return records[0].Wanted[0].Value
}
