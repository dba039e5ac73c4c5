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

// eabEnv is an environment whose CA wants an external account binding, with the name of a site
// and a function that configures it with what else its issuer's block shall hold.
func eabEnv(t *testing.T) (e *env, name string, configure func(more ...string) string) {
	t.Helper()
	e = newEnv(t, harness.Options{CA: lab.CAConfig{EAB: map[string]string{"kid-1": eabKey}, RequireEAB: true}})
	name = e.Name("eab")
	return e, name, func(more ...string) string {
		caddyfile := e.Global() + e.Site(name, e.Block(more...))
		e.configure(caddyfile)
		return caddyfile
	}
}

// A CA that wants an external account binding is known before anything is registered, and no
// account comes to be without the binding.
func TestExternalAccountIsRequired(t *testing.T) {
	e, _, configure := eabEnv(t)
	configure()
	// whether such a CA offers the challenge, only an order can tell
	if r := e.ends(2, "probe"); !has(r.out, "external account", "required") || has(r.out, "not required") || !has(r.out, "set eab") {
		t.Errorf("probe says %s", r.out)
	}
	probe := decode[dnspersist.ProbeReply](t, e.ends(2, "probe", "--format", "json").out).CAs
	if len(probe) != 1 || !probe[0].ExternalAccountRequired || !has(probe[0].Note, "set eab") {
		t.Errorf("probe says %+v", probe)
	}
	r := e.ends(1, "account", "--register")
	if !has(r.err, "external account binding", "key ID", "MAC key", "set eab") || r.out != "" {
		t.Errorf("without a binding: %q and %q", r.out, r.err)
	}
	assertNothingBound(t, e)

	// with a binding there is nothing left to be said of it
	configure("eab kid-1 " + eabKey)
	if r := e.ends(2, "probe"); !has(r.out, "external account", "required") || has(r.out, "not required") || has(r.out, "set eab") {
		t.Errorf("probe with a binding says %s", r.out)
	}
	assertNothingBound(t, e)
}

// A binding that the CA does not take is an error that shows no key, and binds nothing.
func TestExternalAccountIsRefused(t *testing.T) {
	e, _, configure := eabEnv(t)
	const other = "AAAAAAAAQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"
	const garbage = "this+is/no*base64url=+of-any-kind"
	for what, c := range map[string]struct {
		kid, key string
		want     []string
	}{
		"a key of somebody else": {"kid-1", other, []string{"registering an ACME account", e.CA.Directory(), "check the key ID and the MAC key of eab"}},
		"an unknown key ID":      {"kid-2", eabKey, []string{"registering an ACME account", e.CA.Directory(), "check the key ID and the MAC key of eab"}},
		"a key that is none":     {"kid-1", garbage, []string{"eab", "MAC key", "base64url"}},
	} {
		configure("eab " + c.kid + " " + c.key)
		r := e.ends(1, "account", "--register")
		if !strings.HasPrefix(r.err, "error: ") || !has(r.err, c.want...) || r.out != "" {
			t.Errorf("%s: said %q and %q", what, r.out, r.err)
		}
		assertUnseen(e, c.key)
		configure("eab kid-1 " + eabKey)
		assertNothingBound(t, e)
	}
}

// With the right key an account is registered, once, and the key is seen nowhere: not in what
// commands write, not in the log of a Caddy that runs with it, and not with the account.
func TestExternalAccountIsBound(t *testing.T) {
	e, name, configure := eabEnv(t)
	caddyfile := configure("eab kid-1 " + eabKey)
	var url string
	for range 2 {
		all := decode[dnspersist.AccountReply](t, e.ok("account", "--register", "--json").out).Accounts
		if len(all) != 1 || all[0].Status != "valid" || url != "" && all[0].URL != url {
			t.Fatalf("registered %+v, before %q", all, url)
		}
		url = all[0].URL
	}
	if n := len(e.CA.Accounts()); n != 1 {
		t.Errorf("the CA has %d accounts, want 1", n)
	}
	if exported := e.ok("account", "export").out; strings.Contains(exported, eabKey) {
		t.Error("the exported account holds the MAC key, which it has no use for")
	}
	e.Load(caddyfile)
	if value := e.Asked(name); value != e.Value(url, false) {
		t.Errorf("Caddy asks for %q, want %q", value, e.Value(url, false))
	}
	for _, command := range []string{"account", "probe", "records", "check"} {
		e.with(command)
		e.caddy(command, "--address", e.Admin)
	}
	e.Publish(name, e.Value(url, false))
	e.WaitTrusted(name, harness.Soon)
	e.AssertClean(1)

	// the binding was for the registration only: who has the account needs it no more
	configure()
	if r := e.ok("account", "--register"); !has(r.out, url, "valid") {
		t.Errorf("without the binding the bound account is %s", r.out)
	}
	assertUnseen(e, eabKey)
}

// has reports whether text holds all of the parts.
func has(text string, parts ...string) bool {
	for _, p := range parts {
		if !strings.Contains(text, p) {
			return false
		}
	}
	return true
}

// assertUnseen checks that a key is neither in what was said, nor in the log or in storage.
func assertUnseen(e *env, key string) {
	e.T.Helper()
	if strings.Contains(e.said.String(), key) {
		e.T.Errorf("a command has shown %s", key)
	}
	files := []string{e.LogFile}
	_ = filepath.WalkDir(e.Storage, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files = append(files, path)
		}
		return nil
	})
	for _, f := range files {
		if data, _ := os.ReadFile(f); strings.Contains(string(data), key) {
			e.T.Errorf("%s holds %s", f, key)
		}
	}
}

// assertNothingBound checks that the CA has no account, and storage none that it has confirmed.
func assertNothingBound(t *testing.T, e *env) {
	t.Helper()
	if n := len(e.CA.Accounts()); n != 0 {
		t.Errorf("the CA has %d accounts, want none", n)
	}
	// the key is kept before it is registered, so that a crash cannot lose the account
	found, err := filepath.Glob(filepath.Join(e.Storage, "dns_persist", "*", "account.json"))
	if err != nil || len(found) > 1 {
		t.Errorf("storage has %v, %v", found, err)
	}
	for _, f := range found {
		data, err := os.ReadFile(f)
		if kept := decode[map[string]any](t, string(data)); err != nil || kept["url"] != nil && kept["url"] != "" {
			t.Errorf("storage has the account %v, %v", kept["url"], err)
		}
	}
	if r := e.ends(2, "account"); !has(r.err, "no ACME account is bound yet") {
		t.Errorf("account says %q and %q", r.out, r.err)
	}
}
