package dnspersist

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddytls"
)

// Syntax and errors are pinned by the golden files of the package caddyfile.

func TestUnmarshalOverInherited(t *testing.T) {
	iss := newIssuer()
	for _, block := range []string{
		"dns_persist https://a.example/ {\n\temail a@a.example\n\tcheck none\n\tresolvers 192.0.2.1\n}",
		"dns_persist {\n\tdir https://b.example/\n\tcheck authoritative\n}",
	} {
		if err := iss.UnmarshalCaddyfile(caddyfile.NewTestDispenser(block)); err != nil {
			t.Fatal(err)
		}
	}
	got, err := json.Marshal(iss)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"ca":"https://b.example/","email":"a@a.example","dns":{"resolvers":["192.0.2.1"],"check":"authoritative"}}`
	if string(got) != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestUnmarshalWithoutEmbedded(t *testing.T) {
	var iss Issuer
	if err := iss.UnmarshalCaddyfile(caddyfile.NewTestDispenser("dns_persist https://a.example/")); err != nil {
		t.Fatal(err)
	}
	if iss.CA != "https://a.example/" {
		t.Errorf("the CA is %q", iss.CA)
	}
	if err := iss.UnmarshalCaddyfile(caddyfile.NewTestDispenser("")); err == nil {
		t.Error("no error without any token")
	}
}

// Every word is listed in the error about unknown words, and in nothing else.
func TestAllWords(t *testing.T) {
	listed := make(map[string]bool)
	for word := range strings.SplitSeq(allWords, ", ") {
		if _, ok := words[word]; !ok && word != "preferred_chains" && word != "dns" {
			t.Errorf("%s is listed but not known", word)
		}
		listed[word] = true
	}
	for word := range words {
		if !listed[word] {
			t.Errorf("%s is known but not listed", word)
		}
		if refused[word] != "" {
			t.Errorf("%s is known and refused", word)
		}
	}
}

func TestUnmarshalKeepsSecrets(t *testing.T) {
	for _, block := range []string{
		"dns_persist {\n\taccount_key hush hush\n}",
		"dns_persist {\n\taccount_key hush\n\taccount_key hush\n}",
		"dns_persist {\n\teab kid hush hush\n}",
	} {
		err := newIssuer().UnmarshalCaddyfile(caddyfile.NewTestDispenser(block))
		if err == nil || strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: got the error %v", block, err)
		}
	}
}

func FuzzUnmarshalCaddyfile(f *testing.F) {
	paths, _ := filepath.Glob("../caddyfile/testdata/*.caddyfiletest")
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		text, _, _ := strings.Cut(string(data), "----------")
		if _, block, ok := strings.Cut(text, "dns_persist"); ok {
			f.Add("dns_persist" + block)
		}
	}
	f.Add("dns_persist {\n\tpreferred_chains {\n\t\troot_common_name")
	f.Add("dns_persist { dir {env.X} }")
	f.Add("dns_persist {\n\tdir <<EOF\n") // does not even tokenize
	f.Fuzz(func(t *testing.T, block string) {
		tokens, err := caddyfile.Tokenize([]byte(block), "Testfile")
		if err != nil {
			return
		}
		iss := newIssuer()
		if iss.UnmarshalCaddyfile(caddyfile.NewDispenser(tokens)) != nil {
			return
		}
		first, err := json.Marshal(iss)
		if err != nil {
			t.Fatal(err)
		}
		again := newIssuer()
		if err := caddy.StrictUnmarshalJSON(first, again); err != nil {
			t.Fatalf("%s: %v", first, err)
		}
		second, err := json.Marshal(again)
		if err != nil {
			t.Fatal(err)
		}
		if string(first) != string(second) {
			t.Errorf("%s became %s", first, second)
		}
	})
}

func newIssuer() *Issuer { return &Issuer{ACMEIssuer: new(caddytls.ACMEIssuer)} }
