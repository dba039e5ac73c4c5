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
	found := literalSecrets(iss)
	if len(found) != 2 || strings.Contains(fmt.Sprint(found), "hush") {
		t.Errorf("found %v", found)
	}
	iss = &Issuer{ACMEIssuer: &caddytls.ACMEIssuer{AccountKey: "{file./a.pem}", ExternalAccount: &acme.EAB{MACKey: "{file./b}"}}}
	if found := literalSecrets(iss); len(found) > 0 {
		t.Errorf("placeholders: %v", found)
	}
	if files := secretFiles(iss); fmt.Sprint(files) != "[/a.pem /b]" {
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
