package commands

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dnspersist/caddy-dnspersist/dnspersist"
	"github.com/dnspersist/caddy-dnspersist/internal/e2e/harness"
)

// What changes or copies an account does not mean another one than the Caddy that runs, unless
// its configuration was named.
func TestOtherAccountThanTheRunning(t *testing.T) {
	e := newEnv(t, harness.Options{})
	name := e.Name("www")
	caddyfile := e.Global() + e.Site(name, e.Block())
	e.configure(caddyfile)
	account := e.Bind()
	e.Load(caddyfile)
	e.Asked(name)

	// as sudo does it: another user's data directory, and so another storage
	other := e.elsewhere(t, caddyfile)
	e.dir = filepath.Dir(other.config)
	for _, args := range [][]string{
		{"account", "--register"},
		{"account", "export"},
		{"account", "rollover"},
		{"account", "deactivate", "--yes", account},
		{"check", "--ask", name},
		{"probe", "--order", name},
	} {
		r := e.caddy(args...)
		if r.status != 1 || r.out != "" || !has(r.err, "the Caddy that runs uses the account "+account, "has none", "as the user that Caddy runs as") {
			t.Errorf("%v: status %d: %s%s", args, r.status, r.out, r.err)
		}
	}
	if n := len(e.CA.Accounts()); n != 1 {
		t.Errorf("%d accounts", n)
	}
	if r := e.caddy("account", "--json"); r.status != 0 || decode[dnspersist.AccountReply](t, r.out).Accounts[0].URL != account {
		t.Errorf("account of the running Caddy: %d %s%s", r.status, r.out, r.err)
	}
	// one that was named is meant
	if r := e.caddy("account", "--register", "--config", other.config); r.status != 0 || len(e.CA.Accounts()) != 2 {
		t.Errorf("of a named configuration: %d %s%s", r.status, r.out, r.err)
	}
	// and its own storage is the running Caddy's
	if err := os.WriteFile(other.config, []byte(caddyfile), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := e.caddy("account", "export"); r.status != 0 || !strings.Contains(r.out, account) {
		t.Errorf("export: %d %s", r.status, r.err)
	}
}

// A storage of another user is read, if that is allowed, and never written.
func TestStorageOfAnotherUser(t *testing.T) {
	if os.Geteuid() < 0 {
		t.Skip("there are no owners of folders here as on Unix")
	}
	e := newEnv(t, harness.Options{})
	name := e.Name("www")
	storage := "/" // is root's
	if os.Geteuid() == 0 {
		storage = filepath.Join(t.TempDir(), "theirs")
		if err := os.Mkdir(storage, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(storage, 65534, -1); err != nil {
			t.Fatal(err)
		}
	}
	e.configure(strings.ReplaceAll(e.Global()+e.Site(name, e.Block()), e.Storage, storage))
	for _, args := range [][]string{{"account", "--register"}, {"account", "rollover"}, {"check", "--ask", name}, {"publish", name}} {
		if r := e.ends(1, args...); !has(r.err, "the storage "+storage+" belongs to the user ", "run the command as that user") {
			t.Errorf("%v: %s", args, r.err)
		}
	}
	if r := e.ends(2, "account"); !has(r.err, "no ACME account is bound yet") {
		t.Errorf("account: %s", r.err)
	}
	if n := len(e.CA.Accounts()); n != 0 {
		t.Errorf("%d accounts", n)
	}
	if os.Geteuid() != 0 {
		return
	}
	// Caddy itself runs as this user: then its own folders in a foreign one are ours
	if err := os.Mkdir(filepath.Join(storage, "certificates"), 0o700); err != nil {
		t.Fatal(err)
	}
	e.ok("account", "--register")
}
