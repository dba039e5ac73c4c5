package commands

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dnspersist/caddy-dnspersist/dnspersist"
	"github.com/dnspersist/caddy-dnspersist/internal/e2e/harness"
)

// Each format adds our value and keeps what others have there, and adds nothing where a value
// as good stands.
func TestFormatsKeepForeignValues(t *testing.T) {
	e := newEnv(t, harness.Options{})
	www, blog, alias := e.Name("www"), e.Name("blog"), e.Name("alias")
	e.configure(e.Global() + e.Site(www+", *."+www+", "+blog+", "+alias, e.Block()))
	value := e.Value(e.Bind(), true)
	e.well("probe", "--order", www) // the issuer domain names are known from now on
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
		r := e.well("records", "--format", format)
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
	r := e.well("records", "--standby", file, "--format", "zone", "--dns", "never")
	for _, value := range []string{e.Value(first, false), e.Value(url, false)} {
		if !strings.Contains(r.out, value) {
			t.Errorf("%s is missing:\n%s", value, r.out)
		}
	}
	if url == first {
		t.Error("one account")
	}
}
