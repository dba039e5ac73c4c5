package account

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/internal/e2e/harness"
	"github.com/dnspersist/caddy-dnspersist/internal/lab"
)

// register makes an account at the CA, as another program would.
func register(t *testing.T, ca *lab.CA, email string) acme.Account {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	account := acme.Account{TermsOfServiceAgreed: true, PrivateKey: key}
	if email != "" {
		account.Contact = []string{"mailto:" + email}
	}
	client := &acme.Client{Directory: ca.Directory(), HTTPClient: ca.HTTPClient()}
	if account, err = client.NewAccount(context.Background(), account); err != nil {
		t.Fatal(err)
	}
	return account
}

func keyPEM(t *testing.T, account acme.Account) string {
	t.Helper()
	pem, err := certmagic.PEMEncodePrivateKey(account.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem)
}

// asAcme registers an account and files it as CertMagic files those of `acme`.
func asAcme(e *harness.Env, email string) string {
	t := e.T.(*testing.T)
	t.Helper()
	account := register(t, e.CA, email)
	folder, file := email, strings.Split(email, "@")[0]
	if email == "" {
		folder, file = "default", "default"
	}
	dir := filepath.Join(users(e), folder)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	registration, err := json.Marshal(account)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{file + ".json": registration, file + ".key": []byte(keyPEM(t, account))} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return account.Location
}

func users(e *harness.Env) string {
	return filepath.Join(e.Storage, "acme", certmagic.StorageKeys.Safe(acmepersist.IssuerKey(e.CA.Directory())), "users")
}

// binding is the bound account's file.
func binding(e *harness.Env) string {
	return filepath.Join(e.Storage, "dns_persist", certmagic.StorageKeys.Safe(acmepersist.IssuerKey(e.CA.Directory())), "account.json")
}

func bound(t *testing.T, e *harness.Env) (url string, raw []byte) {
	t.Helper()
	raw, err := os.ReadFile(binding(e))
	if err != nil {
		t.Fatal(err)
	}
	var b struct{ URL string }
	if err := json.Unmarshal(raw, &b); err != nil {
		t.Fatal(err)
	}
	return b.URL, raw
}

// logged waits for an entry whose text holds all of the words.
func logged(e *harness.Env, message string, words ...string) {
	e.T.Helper()
	e.Eventually(harness.Soon, fmt.Sprintf("a log entry with %q", words), func() error {
	entries:
		for _, l := range e.Logs(message) {
			text, _ := json.Marshal(l)
			for _, w := range words {
				if !bytes.Contains(text, []byte(w)) {
					continue entries
				}
			}
			return nil
		}
		return fmt.Errorf("none among %d entries with %q", len(e.Logs(message)), message)
	})
}

// assertNoKey checks that no key was logged.
func assertNoKey(e *harness.Env, secrets ...string) {
	e.T.Helper()
	log, err := os.ReadFile(e.LogFile)
	if err != nil {
		e.T.Fatal(err)
	}
	for _, s := range append(secrets, "PRIVATE KEY") {
		if bytes.Contains(log, []byte(s)) {
			e.T.Errorf("the log holds %q", s)
		}
	}
}
