package publish

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// A secret is found in the encodings in which clients put it into requests and dumps.
func TestRedactEncoded(t *testing.T) {
	const secret = "correct-horse-battery"
	for _, before := range []string{"", "u:", "user:", "somebody:"} {
		for _, behind := range []string{"", "x", "xy", "xyz"} {
			whole := []byte(before + secret + behind)
			for _, text := range []string{
				base64.StdEncoding.EncodeToString(whole), base64.RawURLEncoding.EncodeToString(whole),
				hex.EncodeToString(whole), strings.ToUpper(hex.EncodeToString(whole)),
			} {
				clean := Redact("authorization: "+text, []string{secret})
				if !strings.Contains(clean, "[redacted]") || strings.Contains(clean, text) {
					t.Errorf("%q + secret + %q: %s", before, behind, clean)
				}
				for _, encoding := range []*base64.Encoding{base64.StdEncoding, base64.RawURLEncoding} {
					rest := strings.NewReplacer("authorization: ", "", "[redacted]", "").Replace(clean)
					if decoded, err := encoding.DecodeString(rest); err == nil && strings.Contains(string(decoded), secret[4:12]) {
						t.Errorf("%q + secret + %q: %s still tells it", before, behind, clean)
					}
				}
			}
		}
	}
	r, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://api.example/", nil)
	r.SetBasicAuth("user", secret)
	if clean := Redact(fmt.Sprint(r.Header), []string{secret}); !strings.Contains(clean, "[redacted]") {
		t.Errorf("basic authentication: %s", clean)
	}
	if clean := Redact("a short text", []string{"ab"}); clean != "a short text" {
		t.Errorf("a short secret: %q", clean)
	}
}

// FuzzRedact checks that a secret is never left in a text as it is.
func FuzzRedact(f *testing.F) {
	f.Add("error: hush", "hush")
	f.Add("aHVzaA", "hush hush")
	f.Fuzz(func(t *testing.T, text, secret string) {
		if secret == "" || strings.Contains("[redacted]", secret) {
			return
		}
		clean := Redact(text, []string{secret})
		for part := range strings.SplitSeq(clean, "[redacted]") {
			if strings.Contains(part, secret) {
				t.Errorf("%q in %q", secret, clean)
			}
		}
	})
}
