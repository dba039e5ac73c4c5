package dnspersist

import (
	"fmt"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/modules/caddytls"
	"github.com/mholt/acmez/v3/acme"
)

// A secret in the configuration is named whichever option holds it, and never shown.
func TestSecretsInTheConfiguration(t *testing.T) {
	iss := &Issuer{ACMEIssuer: &caddytls.ACMEIssuer{AccountKey: "-----BEGIN PRIVATE KEY-----", ExternalAccount: &acme.EAB{KeyID: "k", MACKey: "hush"}}}
	found := iss.literalSecrets()
	if len(found) != 2 || strings.Contains(fmt.Sprint(found), "hush") {
		t.Errorf("found %v", found)
	}
	iss = &Issuer{ACMEIssuer: &caddytls.ACMEIssuer{AccountKey: "{file./a.pem}", ExternalAccount: &acme.EAB{MACKey: "{file./b}"}}}
	if found := iss.literalSecrets(); len(found) > 0 {
		t.Errorf("placeholders: %v", found)
	}
	if files := iss.secretFiles(); fmt.Sprint(files) != "[/a.pem /b]" {
		t.Errorf("files %v", files)
	}
}

func TestReadableByOthers(t *testing.T) {
	if goruntime.GOOS == "windows" {
		t.Skip("modes say nothing here")
	}
	path := filepath.Join(t.TempDir(), "key.pem")
	for mode, want := range map[os.FileMode]bool{0o600: false, 0o640: false, 0o644: true} {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if got := readableByOthers(path); (got != "") != want {
			t.Errorf("%o: %q", mode, got)
		}
	}
	if got := readableByOthers(path + "x"); got != "" {
		t.Errorf("no file: %q", got)
	}
}

func TestNearName(t *testing.T) {
	managed := []string{"example.com", "shop.example.com", "other.test"}
	for name, want := range map[string]string{
		"exmaple.com": "example.com", "shop.example.co": "shop.example.com", "sohp.example.com": "shop.example.com",
		"tenant.example.com": "", "a.test": "", "example.org": "",
	} {
		if got := nearName(name, managed); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

// FuzzCheckRequest checks that no body makes the reader fail otherwise than by an error.
func FuzzCheckRequest(f *testing.F) {
	for _, seed := range []string{`{"names":["a.example"]}`, `{"names":["a"]} trailing`, `{"names":["a"]}{}`, `[`, `{"thorough":true,"x":1}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var req CheckRequest
		if readStrictly(body, &req) == nil && strings.HasSuffix(strings.TrimSpace(string(body)), "trailing") {
			t.Errorf("%q was read", body)
		}
	})
}

func TestReadStrictly(t *testing.T) {
	for body, ok := range map[string]bool{
		`{"names":["a"]}`: true, `{"names":["a"]} ` + "\n": true, `{"names":["a"]} trailing`: false, `{"names":["a"]}{}`: false, `{"name":["a"]}`: false, ``: false,
	} {
		var req CheckRequest
		if err := readStrictly([]byte(body), &req); (err == nil) != ok {
			t.Errorf("%q: %v", body, err)
		}
	}
}
