package commands

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/dnspersist/caddy-dnspersist/dnspersist"
	"github.com/dnspersist/caddy-dnspersist/internal/e2e/harness"
)

// Each format adds our value and keeps what others have there, and adds nothing where a value
// as good is published.
func TestFormatsKeepForeignValues(t *testing.T) {
	e := newEnv(t, harness.Options{})
	www, blog, alias := e.Name("www"), e.Name("blog"), e.Name("alias")
	e.configure(e.Global() + e.Site(www+", *."+www+", "+blog+", "+alias, e.Block()))
	value := e.Value(e.Bind(), true)
	e.ok("probe", "--order", www) // the issuer domain names are known from now on
	foreign := `other.example; accounturi=https://other.example/1; note="a\b"`
	e.Publish(www, foreign)
	// as good, in other words
	e.Publish(blog, strings.ReplaceAll(e.Value(e.Bind(), false), "; ", ";"))
	e.DNS.SetRR(0, fmt.Sprintf("_validation-persist.%s. 300 IN CNAME target.example.test.", alias))
	e.DNS.SetRR(0, `target.example.test. 300 IN TXT "theirs"`)

	for format, want := range map[string]struct {
		has, hasNot []string
	}{
		"zone":      {has: []string{value, "target.example.test. "}, hasNot: []string{"other.example;", "theirs"}},
		"nsupdate":  {has: []string{value, "update add target.example.test. 300", "update add _validation-persist." + www + ". "}, hasNot: []string{"delete", "other.example;", "theirs"}},
		"route53":   {has: []string{value, `other.example; accounturi=https://other.example/1; note=\\\"a\\\\b\\\"`, `\"theirs\"`}, hasNot: []string{"_validation-persist." + blog}},
		"terraform": {has: []string{value, `other.example; accounturi=https://other.example/1; note=\"a\\b\"`, `"theirs"`, `"target.example.test"`}},
	} {
		r := e.ok("records", "--format", format)
		for _, text := range want.has {
			if !strings.Contains(r.out, text) {
				t.Errorf("%s lacks %s:\n%s", format, text, r.out)
			}
		}
		for _, text := range want.hasNot {
			if strings.Contains(r.out, text) {
				t.Errorf("%s has %s:\n%s", format, text, r.out)
			}
		}
		if !strings.Contains(r.err, "is an alias (CNAME) of target.example.test") {
			t.Errorf("%s: %s", format, r.err)
		}
	}
	// octoDNS cannot hold the backslash: an error is better than a lost value
	if r := e.ends(1, "records", "--format", "octodns"); !strings.Contains(r.err, "another format") || r.out != "" {
		t.Errorf("octodns: %q, %s", r.out, r.err)
	}

	// no answer: no format that would replace what cannot be read
	e.DNS.SetMode(0, "silent")
	if r := e.ends(1, "records", www, "--format", "route53"); !strings.Contains(r.err, "might be lost") || r.out != "" {
		t.Errorf("route53 of silent servers: %q, %s", r.out, r.err)
	}
}

// A second account stands by, its key elsewhere.
func TestStandby(t *testing.T) {
	e := newEnv(t, harness.Options{})
	name := e.Name("www")
	e.configure(e.Global() + e.Site(name, e.Block()))
	first := e.Bind()
	other := filepath.Join(t.TempDir(), "Caddyfile")
	storage := filepath.ToSlash(filepath.Join(t.TempDir(), "other"))
	if err := os.WriteFile(other, []byte(strings.ReplaceAll(e.Global()+e.Site(name, e.Block()), e.Storage, storage)), 0o600); err != nil {
		t.Fatal(err)
	}
	second := e.caddy("account", "--register", "--json", "--config", other)
	file := filepath.Join(t.TempDir(), "standby.json")
	if err := os.WriteFile(file, []byte(second.out), 0o600); err != nil {
		t.Fatal(err)
	}
	url := decode[dnspersist.AccountReply](t, second.out).Accounts[0].URL
	r := e.ok("records", "--standby", file, "--format", "zone", "--dns", "never")
	for _, value := range []string{e.Value(first, false), e.Value(url, false)} {
		if !strings.Contains(r.out, value) {
			t.Errorf("%s is missing:\n%s", value, r.out)
		}
	}
	if url == first {
		t.Error("one account")
	}

	for want, change := range map[string]func(string) string{
		"is the bound one":                 func(s string) string { return strings.ReplaceAll(s, url, first) },
		"which no issuer of these names":   func(s string) string { return strings.ReplaceAll(s, e.CA.Directory(), "https://ca.example/dir") },
		"is deactivated at its CA":         func(s string) string { return strings.Replace(s, `"valid"`, `"deactivated"`, 1) },
		"lacks a URL or a thumbprint":      func(s string) string { return strings.Replace(s, `"thumbprint"`, `"other"`, 1) },
		"making the record of the standby": func(s string) string { return strings.ReplaceAll(s, url, url+"\u202e") },
	} {
		changed := change(second.out)
		if changed == second.out {
			t.Fatalf("%q changes nothing", want)
		}
		if err := os.WriteFile(file, []byte(changed), 0o600); err != nil {
			t.Fatal(err)
		}
		if r := e.ends(1, "records", "--standby", file, "--format", "zone", "--dns", "never"); !has(r.err, want) || r.out != "" || strings.Contains(r.err, "\u202e") {
			t.Errorf("standby, want %q: %q %q", want, r.out, r.err)
		}
	}
}

// Names come from standard input, in whatever letters and with what people write around them.
func TestNamesFromInput(t *testing.T) {
	e := newEnv(t, harness.Options{})
	e.configure(e.Global("cert_issuer dns_persist "+e.Block()) + "https:// {\n\ttls {\n\t\ton_demand\n\t}\n\trespond hi\n}\n")
	e.Bind()
	in := "Tenant.Example.test\n\n# a comment\n*.tenant.example.test. _validation-persist.b\u00fccher.example.test # theirs\r\n"
	r := e.caddyIn(in, "records", "-", "--format", "json", "--dns", "never", "--config", e.config)
	if r.status != 0 {
		t.Fatalf("%d: %s", r.status, r.err)
	}
	sets := decode[dnspersist.RecordsReply](t, r.out).Records
	if len(sets) != 2 || sets[0].Name != "_validation-persist.tenant.example.test" || sets[1].Name != "_validation-persist.xn--bcher-kva.example.test" ||
		!slices.Equal(sets[0].Wanted[0].Identifiers, []string{"*.tenant.example.test", "tenant.example.test"}) {
		t.Errorf("records %+v", sets)
	}
	if r := e.ok("records"); r.out != "NAME  TTL  TYPE  VALUE  FOR  STATE\n" || !strings.Contains(r.err, "give the names as arguments") {
		t.Errorf("on demand only: %q, %s", r.out, r.err)
	}
}

// A record below a name that only a wildcard answers for makes the name exist.
func TestWildcardWouldBreak(t *testing.T) {
	e := newEnv(t, harness.Options{})
	e.configure(e.Global() + e.Site("shop.example.test", e.Block()))
	e.Bind()
	e.DNS.SetRR(0, "*.example.test. 300 IN A 192.0.2.80")
	for _, args := range [][]string{{"records"}, {"records", "--format", "zone"}} {
		if r := e.ok(args...); !strings.Contains(r.err, "the wildcard *.example.test stops answering A for it") {
			t.Errorf("%v: %s", args, r.err)
		}
	}
	if r := e.ends(2, "check"); !strings.Contains(r.out, "wildcard_will_break") {
		t.Errorf("check: %s", r.out)
	}
}
