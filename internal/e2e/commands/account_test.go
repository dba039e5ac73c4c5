package commands

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist"
	"github.com/dnspersist/caddy-dnspersist/internal/e2e/harness"
	"github.com/dnspersist/caddy-dnspersist/internal/lab"
)

// The account goes from one storage to another, its key is changed while a Caddy runs with
// it, and it is ended.
func TestAccountCommands(t *testing.T) {
	dialect, err := lab.ParseDialect("02")
	if err != nil {
		t.Fatal(err)
	}
	e := newEnv(t, harness.Options{CA: lab.CAConfig{Dialect: dialect}, Lifetime: 40 * time.Second})
	// as at a CA whose frontends keep what they know of an account for some seconds
	e.CA.SetPublic(lab.Public{AccountCache: 2 * time.Second})
	name := e.Name("www")
	site := e.Site(name, e.Block())
	global := e.Global("renew_interval 1s")
	e.configure(global + site)
	file := filepath.Join(t.TempDir(), "account.json")

	if r := e.ends(1, "account", "export", "--output", file); !strings.Contains(r.err, "no ACME account is bound yet") {
		t.Errorf("export of nothing: %s", r.err)
	}
	account := decode[dnspersist.AccountReply](t, e.ok("account", "--register", "--json").out).Accounts[0]
	e.ok("account", "export", "--output", file)
	if info, err := os.Stat(file); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if r := e.ends(1, "account", "export", "--output", file); !strings.Contains(r.err, "is not overwritten") {
		t.Errorf("export over a file: %s", r.err)
	}
	piped := e.ok("account", "export").out
	if data, _ := os.ReadFile(file); piped != string(data) {
		t.Errorf("piped %q, in the file %q", piped, data)
	}

	// a second machine: nothing is registered there
	elsewhere := filepath.Join(t.TempDir(), "Caddyfile")
	storage := filepath.ToSlash(filepath.Join(t.TempDir(), "other"))
	if err := os.WriteFile(elsewhere, []byte(strings.ReplaceAll(global+site, e.Storage, storage)), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if r := e.caddyIn(piped, "account", "import", "-", "--config", elsewhere); r.status != 0 || !strings.Contains(r.err, account.URL) {
			t.Fatalf("import: %d %s", r.status, r.err)
		}
	}
	there := decode[dnspersist.AccountReply](t, e.caddy("account", "--json", "--config", elsewhere).out).Accounts
	if len(there) != 1 || there[0].URL != account.URL || len(e.CA.Accounts()) != 1 {
		t.Errorf("imported %+v, %d accounts", there, len(e.CA.Accounts()))
	}
	if r := e.caddyIn("{}", "account", "import", "-", "--config", elsewhere); r.status != 1 || !strings.HasPrefix(r.err, "error: importing the account") {
		t.Errorf("import of nonsense: %d %s", r.status, r.err)
	}

	// a certificate, a rollover while Caddy runs, a renewal with the old record and the new key
	value := decode[dnspersist.RecordsReply](t, e.ok("records", "--format", "json").out).Records[0].Wanted[0].Value
	e.Publish(name, value)
	e.Load(global + site)
	first := e.WaitTrusted(name, harness.Soon)
	r := e.ok("account", "rollover", "--format", "json")
	fresh := decode[struct {
		NewThumbprint string                 `json:"new_thumbprint"`
		Publish       []dnspersist.RecordSet `json:"publish"`
	}](t, r.out)
	if fresh.NewThumbprint == account.Thumbprint || len(fresh.Publish) != 1 || fresh.Publish[0].Wanted[0].Value == value {
		t.Errorf("rollover %+v", fresh)
	}
	e.Publish(name, value, fresh.Publish[0].Wanted[0].Value)
	e.Eventually(2*harness.Soon, "a renewal with the new key", func() error {
		cert, err := e.Trusted(name)
		if err != nil {
			return err
		}
		if cert.SerialNumber.Cmp(first.SerialNumber) == 0 {
			return errors.New("still the first certificate")
		}
		return nil
	})
	if r := e.caddy("account", "import", file, "--config", e.config); r.status != 1 {
		t.Errorf("a former key was imported: %s", r.err)
	}

	if r := e.ends(1, "account", "deactivate"); !strings.Contains(r.err, "--yes "+account.URL) {
		t.Errorf("deactivate without a word: %s", r.err)
	}
	if r := e.ends(1, "account", "deactivate", "--yes", account.URL+"x"); !strings.Contains(r.err, account.URL) {
		t.Errorf("deactivate of another: %s", r.err)
	}
	e.ok("account", "deactivate", "--yes", account.URL)
	if state := decode[dnspersist.AccountReply](t, e.ends(2, "account", "--json").out).Accounts; len(state) != 1 || state[0].Status != "deactivated" {
		t.Errorf("after deactivation %+v", state)
	}
	if r := e.ends(1, "records"); !strings.Contains(r.err, "deactivated") {
		t.Errorf("records of a dead account: %s", r.err)
	}
	if len(e.CA.Accounts()) != 1 {
		t.Errorf("%d accounts", len(e.CA.Accounts()))
	}
}
