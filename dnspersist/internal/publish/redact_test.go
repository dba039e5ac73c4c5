package publish

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
)

// clientError is what clients of providers return: with all that they know.
type clientError struct{ token string }

func (e *clientError) Error() string { return "token " + e.token + " was refused" }
func (e *clientError) Unwrap() error { return context.DeadlineExceeded }

func TestRedactError(t *testing.T) {
	plain := errors.New("no such zone")
	if err := RedactError(plain, []string{"hush", ""}); err != plain { //nolint:errorlint // the very same
		t.Errorf("without a secret: %v", err)
	}
	err := fmt.Errorf("adding: %w", RedactError(fmt.Errorf("calling: %w", &clientError{"hush-hush"}), []string{"hush", "hush-hush"}))
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
