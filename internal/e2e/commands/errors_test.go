package commands

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dnspersist/caddy-dnspersist/internal/e2e/harness"
	"github.com/dnspersist/caddy-dnspersist/internal/lab"
)

// Whatever goes wrong, a command says in a sentence what to do, and ends with a status that is
// not 0.
func TestErrors(t *testing.T) {
	e := newEnv(t, harness.Options{})
	good := e.config
	name := e.Name("www")
	e.configure(e.Global() + e.Site(name, e.Block()))
	e.Bind()
	write := func(file, text string) string {
		t.Helper()
		path := filepath.Join(t.TempDir(), file)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	dead, err := lab.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	none := write("Caddyfile", "{\n\tadmin off\n}\nexample.com {\n\trespond hi\n}\n")
	unreachable := write("Caddyfile", e.Global()+strings.ReplaceAll(e.Site(name, e.Block()), e.CA.Directory(), fmt.Sprintf("https://127.0.0.1:%d/dir", dead)))
	damaged := filepath.ToSlash(t.TempDir())
	broken := write("Caddyfile", strings.ReplaceAll(e.Global()+e.Site(name, e.Block()), e.Storage, damaged))
	if err := os.CopyFS(filepath.FromSlash(damaged), os.DirFS(e.Storage)); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(damaged, "dns_persist", "*", "account.json"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	if err := os.WriteFile(files[0], []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	eab := write("Caddyfile", e.Global()+e.Site(name, e.Block("eab kid-1 "+eabKey, "account_url "+e.CA.Directory()+"/nobody")))

	cases := []struct {
		args []string
		in   string
		want string // part of what is said
	}{
		{[]string{"records", "www..example.com", "--config", good}, "", "empty label"},
		{[]string{"records", "unknown.example.org", "127.0.0.1", "--config", good}, "", "IP address"},
		{[]string{"records", "-", "--config", good}, "  # nothing\n", "standard input held no name"},
		{[]string{"records", "-", "--config", "-"}, "a.example", "both the configuration and the names"},
		{[]string{"records", "--format", "xml", "--config", good}, "", "--format xml is unknown"},
		{[]string{"records", "--dns", "maybe", "--config", good}, "", "--dns maybe is unknown"},
		{[]string{"records", "--format", "route53", "--dns", "never", "--config", good}, "", "leave --dns never out"},
		{[]string{"records", "--frobnicate"}, "", "error: unknown flag: --frobnicate: see `caddy dns-persist records --help`"},
		{[]string{"records", "--thumbprint", "x", "--account-hash-prefix", "https://ca.example/h/", "--config", good}, "", "--account-url"},
		{[]string{"records", "a.example", "--account-url", "https://ca.example/1"}, "", "missing [issuer]"},
		{[]string{"records", "--account-url", "https://ca.example/1", "--issuer", "ca.example"}, "", "names have to be given"},
		{[]string{"records", "a.example", "--account-url", "https://ca.example/1;x", "--issuer", "CA.example"}, "", "--issuer"},
		{[]string{"records", "a.example", "--account-url", "https://ca.example/1", "--issuer", "ca.example", "--account-hash-prefix", "https://ca.example/h/"}, "", "missing [thumbprint]"},
		{[]string{"records", "--standby", filepath.Join(t.TempDir(), "none"), "--config", good}, "", "standby account"},
		{[]string{"records"}, "", "--config"},
		{[]string{"records", "--config", filepath.Join(t.TempDir(), "none")}, "", "no such file"},
		{[]string{"records", "--config", write("config.json", "{")}, "", "loading the configuration"},
		{[]string{"records", "--config", write("Caddyfile", "a {\n\tdns_persist {\n\t\tnonsense\n\t}\n}\n")}, "", "nonsense"},
		{[]string{"records", "--config", none}, "", "has no dns_persist issuer"},
		{[]string{"records", "--config", broken}, "", "restore it from a backup"},
		{[]string{"records", "--config", eab}, "", "account_url names it"},
		{[]string{"records", "--address", fmt.Sprintf("127.0.0.1:%d", dead)}, "", "no Caddy answers"},
		{[]string{"records", "--address", "127.0.0.1:1-9"}, "", "not the address of an admin endpoint"},
		{[]string{"records", "--address", "127.0.0.1:1", "--config", good}, "", "error: if any flags in the group [config address] are set none of the others can be"},
		{[]string{"records", "a.example", "--account-url", "https://ca.example/1", "--issuer", "ca.example", "--config", good}, "", "[account-url config]"},
		{[]string{"records", "a.example", "--account-url", "", "--issuer", ""}, "", "--issuer: "},
		{[]string{"check", "--timeout", "5", "--config", good}, "", "write a number with its unit"},
		{[]string{"check", "https://" + name + "/", "--config", good}, "", "is not a domain name: give " + name},
		{[]string{"check", "--ask", name, "--wait", "--config", good}, "", "[ask wait]"},
		{[]string{"account", "--register", "--address", "127.0.0.1:1"}, "", "use --config in place of --address"},
		{[]string{"account", "export", "--address", "127.0.0.1:1"}, "", "use --config in place of --address"},
		{[]string{"account", "--ca", "https://other.example/dir", "--config", good}, "", "no dns_persist issuer of the configuration uses the CA"},
		{[]string{"account", "import", "--config", good}, "", "give the file that `account export` has written"},
		{[]string{"account", "import", filepath.Join(t.TempDir(), "none"), "--config", good}, "", "reading the exported account"},
		{[]string{"account", "nonsense", "--config", good}, "", "nonsense"},
		{[]string{"check", "a.example", "--ask", "b.example", "--config", good}, "", "leave the others out"},
		{[]string{"check", "--ca", "b.example", "--config", good}, "", "--ask b.example"},
		{[]string{"probe", "--config", unreachable}, "", "check the URL and that this machine reaches the CA"},
		{[]string{"nonsense"}, "", "nonsense"},
	}
	if os.Geteuid() != 0 { // who may read everything
		locked := filepath.Join(t.TempDir(), "locked")
		if err := os.Mkdir(locked, 0); err != nil {
			t.Fatal(err)
		}
		config := write("Caddyfile", strings.ReplaceAll(e.Global()+e.Site(name, e.Block()), e.Storage, filepath.ToSlash(locked)))
		cases = append(cases, struct {
			args     []string
			in, want string
		}{[]string{"records", "--config", config}, "", "permission"})
	}
	for _, c := range cases {
		r := e.caddyIn(c.in, c.args...)
		if r.status != 1 || !strings.Contains(r.err, c.want) || r.out != "" {
			t.Errorf("caddy dns-persist %s: status %d, said %q and %q, want %q", strings.Join(c.args, " "), r.status, r.out, r.err, c.want)
		}
	}
}
