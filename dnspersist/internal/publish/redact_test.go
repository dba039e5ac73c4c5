package publish

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"unicode"
)

// clientError is what clients of providers return: with all that they know.
type clientError struct{ token string }

func (e *clientError) Error() string { return "token " + e.token + " was refused" }
func (e *clientError) Unwrap() error { return context.DeadlineExceeded }

func TestRedactError(t *testing.T) {
	plain := errors.New("no such zone")
	if err := redactError(plain, []string{"hush", ""}); err != plain { //nolint:errorlint // the very same
		t.Errorf("without a secret: %v", err)
	}
	err := fmt.Errorf("adding: %w", redactError(fmt.Errorf("calling: %w", &clientError{"hush-hush"}), []string{"hush", "hush-hush"}))
	if got, want := err.Error(), "adding: calling: token [redacted] was refused"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		t.Error("errors.Is was lost")
	}
	var original *clientError
	if errors.As(err, &original) {
		t.Error("the error with the secret can be had")
	}
	if text := fmt.Sprintf("%v %+v", err, err); strings.Contains(text, "hush") {
		t.Errorf("shown: %s", text)
	}
}

// A client's error shows a secret as it was sent or printed, not as it was configured.
func TestRedactForms(t *testing.T) {
	const secret = `s3"+c\r/é t=<&>`
	body, err := json.Marshal(map[string]string{"token": secret})
	if err != nil {
		t.Fatal(err)
	}
	address := "https://api.example/update?token=" + url.QueryEscape(secret)
	for name, text := range map[string]string{
		"literal":       secret,
		"query":         (&url.Error{Op: "Get", URL: address, Err: errors.New("refused")}).Error(),
		"small escapes": "s3%22%2bc%5cr%2f%c3%a9+t%3d%3c%26%3e",
		"path":          "https://api.example/" + url.PathEscape(secret) + "/update",
		"whole path":    (&url.URL{Scheme: "https", Host: "api.example", Path: "/" + secret}).String(),
		"user":          (&url.URL{Scheme: "https", Host: "api.example", User: url.UserPassword("me", secret)}).String(),
		"%q":            fmt.Sprintf("the token %q was refused", secret),
		"%+q":           fmt.Sprintf("the token %+q was refused", secret),
		"JSON":          string(body),
		"JSON, no HTML": `{"token":"s3\"+c\\r/é t=<&>"}`,
	} {
		clean := Redact(text, []string{"hush", secret, ""})
		if strings.Contains(clean, "s3") || !strings.Contains(clean, "[redacted]") {
			t.Errorf("%s: %s became %s", name, text, clean)
		}
	}
	// one that holds the other goes as a whole, also where only its escaped form is longer
	if got := Redact("token=a%2Fb%2Fc-tail", []string{"a/b", "a/b/c-tail"}); got != "token=[redacted]" {
		t.Errorf("got %s", got)
	}
	if got := Redact("nothing here", []string{"hush"}); got != "nothing here" {
		t.Errorf("got %s", got)
	}
}

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
						t.Errorf("%q + secret + %q: %s still shows it", before, behind, clean)
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

// What a provider's client reports reaches neither a terminal nor a log as it is, and what is
// wrapped stays so.
func TestProviderErrorsFitIntoMessages(t *testing.T) {
	cause := errors.New("403: \x1b[2J\n{\"level\":\"info\"} \u202e\u0085 token=hunter22 " + strings.Repeat("<html>\n", 5000))
	for _, secrets := range [][]string{nil, {"hunter22"}} {
		err := redactError(cause, secrets)
		for _, r := range err.Error() {
			if unicode.In(r, unicode.C, unicode.Zl, unicode.Zp) {
				t.Fatalf("%q holds %q", err, r)
			}
		}
		if len(err.Error()) > maxError || !strings.HasPrefix(err.Error(), `403: \x1b[2J\n{"level"`) || !errors.Is(err, cause) {
			t.Errorf("%d octets: %.200s", len(err.Error()), err)
		}
		if secrets != nil && strings.Contains(err.Error(), "hunter22") {
			t.Errorf("a secret is left: %.200s", err)
		}
	}
	// a secret that would be cut in two
	at := strings.Repeat("x", maxError-44) + "hunter22" + strings.Repeat("y", 100)
	if err := redactError(errors.New(at), []string{"hunter22"}); strings.Contains(err.Error(), "hunt") {
		t.Errorf("a part of a secret is left: %s", err)
	}
}
