package acmepersist

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

// FuzzParseExport reads what somebody gives us as an account, which is never kept in parts, and
// of which no error may quote a key.
func FuzzParseExport(f *testing.F) {
	const ca = "https://ca.example/dir"
	key, err := generateAccountKey()
	if err != nil {
		f.Fatal(err)
	}
	bound, err := newBound(ca, originRegistered, key, []string{"mailto:me@example.com"})
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
		b, err := parseExport(data, ca)
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
		if err != nil || b.CA != ca || checkEncrypted(ca, b.URL) != nil {
			t.Fatalf("%+v was taken: %v", b, err)
		}
		if thumbprint, err := thumbprintOf(signer); err != nil || thumbprint != b.Thumbprint {
			t.Fatalf("the thumbprint is %s, want %s: %v", b.Thumbprint, thumbprint, err)
		}
	})
}

func FuzzParseRetryAfter(f *testing.F) {
	for _, s := range []string{"", "0", "17", "-3", "Sun, 01 Nov 2026 12:00:30 GMT", "99999999999999999999", "1e3", "Sunday, 06-Nov-94 08:49:37 GMT"} {
		f.Add(s, int64(1793534400))
	}
	f.Fuzz(func(t *testing.T, header string, now int64) {
		if wait, has := parseRetryAfter(header, time.Unix(now%1e10, 0)); wait < 0 || !has && wait != 0 {
			t.Fatalf("%q is %s, %v", header, wait, has)
		}
	})
}
