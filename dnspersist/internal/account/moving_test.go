package account

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/ca"
)

// FuzzParseExport reads what somebody gives us as an account, which is never kept in parts, and
// of which no error may quote a key.
func FuzzParseExport(f *testing.F) {
	const directory = "https://ca.example/dir"
	key, err := newKey()
	if err != nil {
		f.Fatal(err)
	}
	bound, err := newBinding(directory, originRegistered, key, []string{"mailto:me@example.com"})
	if err != nil {
		f.Fatal(err)
	}
	bound.URL = "https://ca.example/acct/1"
	good, err := json.Marshal(exportedAccount{exportFormat, bound})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(strings.Replace(string(good), "https://ca.example/acct/1", "http://ca.example/acct/1", 1)))
	f.Add([]byte(`{"format":"dns-persist-account-v1"}`))
	f.Add([]byte(`{"format":"dns-persist-account-v1","ca":"https://ca.example/dir","url":"https://x/1","key":"` + strings.Repeat("k", 100) + `"}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := parseExport(data, directory)
		if err != nil {
			var held struct {
				Key  string `json:"key"`
				Next string `json:"next_key"`
			}
			_ = json.Unmarshal(data, &held)
			for _, secret := range []string{held.Key, held.Next} {
				if len(secret) > 40 && strings.Contains(err.Error(), secret) {
					t.Fatalf("%v quotes a key", err)
				}
			}
			return
		}
		signer, err := b.signer()
		if err != nil || b.CA != directory || ca.CheckEncrypted(directory, b.URL) != nil {
			t.Fatalf("%+v was taken: %v", b, err)
		}
		if thumbprint, err := thumbprintOf(signer); err != nil || thumbprint != b.Thumbprint {
			t.Fatalf("the thumbprint is %s, want %s: %v", b.Thumbprint, thumbprint, err)
		}
	})
}
