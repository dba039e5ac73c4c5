package acmepersist_test

import (
	"encoding/json"
	"os"
	"testing"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
)

// Another registration that was cut short takes no account's place at an import.
func TestImportBesideACutShortRegistration(t *testing.T) {
	t.Parallel()
	i := newIssuing(t)
	data, err := i.ExportAccount(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// the account as account_key has pinned it once
	read := func(data []byte) (m map[string]any) {
		if err := json.Unmarshal(data, &m); err != nil {
			t.Fatal(err)
		}
		return m
	}
	write := func(path string, m map[string]any) {
		data, err := json.Marshal(m)
		if err == nil {
			err = os.WriteFile(path, data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	bound, err := os.ReadFile(i.file("account.json"))
	if err != nil {
		t.Fatal(err)
	}
	mine := read(bound)
	write(i.file("account_"+mine["thumbprint"].(string)+".json"), mine)
	other := newIssuing(t)
	begun, err := os.ReadFile(other.file("account.json"))
	if err != nil {
		t.Fatal(err)
	}
	short := read(begun)
	short["ca"] = mine["ca"]
	delete(short, "url")
	write(i.file("account.json"), short)

	fresh := i.another()
	result, err := fresh.ImportAccount(t.Context(), data)
	if err != nil {
		t.Fatal(err)
	}
	if result.Outcome != acmepersist.ImportNew {
		t.Errorf("the outcome is %q, want %q", result.Outcome, acmepersist.ImportNew)
	}
	account, err := fresh.Account(t.Context())
	if err != nil || account.URL != mine["url"] {
		t.Errorf("bound is %s, want %s: %v", account.URL, mine["url"], err)
	}
}
