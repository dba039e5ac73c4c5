package publish

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/foreign"
)

// Redact takes secrets out of a text, in each form in which a client's error may show them.
func Redact(text string, secrets []string) string {
	var all []string
	for _, s := range secrets {
		if s != "" {
			all = append(all, forms(s)...)
		}
	}
	// the longest first: what is left of one that holds another would still show most of it
	slices.SortFunc(all, func(a, b string) int { return len(b) - len(a) })
	for _, s := range slices.Compact(all) {
		text = strings.ReplaceAll(text, s, "[redacted]")
	}
	return text
}

// forms are what a secret looks like in an error: as it is, in the URL of a *url.Error (with
// spaces as + and as %20), printed by %q, in a JSON body with and without the escapes of HTML,
// in hexadecimal and in base64.
func forms(secret string) []string {
	inJSON := func(html bool) string {
		var b strings.Builder
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(html)
		if e.Encode(secret) != nil {
			return strconv.Quote(secret)
		}
		return strings.TrimSuffix(b.String(), "\n")
	}
	list := []string{
		secret, url.QueryEscape(secret), url.PathEscape(secret),
		// in a path that net/url writes again, and in a user's name or password
		(&url.URL{Path: secret}).EscapedPath(), url.User(secret).String(),
	}
	for _, quoted := range []string{strconv.Quote(secret), strconv.QuoteToASCII(secret), inJSON(true), inJSON(false)} {
		list = append(list, quoted[1:len(quoted)-1])
	}
	// a *url.Error prints its URL with %q, and some APIs escape in small letters
	for _, s := range list[1:5] {
		list = append(list, lowerEscapes(s))
	}
	list = append(list, hex.EncodeToString([]byte(secret)), strings.ToUpper(hex.EncodeToString([]byte(secret))))
	list = append(list, inBase64(secret)...)
	slices.Sort(list)
	return slices.Compact(list)
}

// leastBase64 is how long a part of a base64 text has to be to be taken out: shorter ones are
// found in other texts as well.
const leastBase64 = 8

// inBase64 is what of a secret is seen in base64, alone and behind something else: "user:secret"
// of HTTP's Basic authentication. What is before and behind it changes the characters at
// its ends, which are left out.
func inBase64(secret string) []string {
	var all []string
	for offset := range 3 {
		padded := append(make([]byte, offset), secret...)
		for _, encoding := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			text := encoding.EncodeToString(padded)
			if offset > 0 {
				text = text[offset+1:]
			}
			if len(padded)%3 != 0 {
				text = text[:len(text)-1]
			}
			if len(text) >= leastBase64 {
				all = append(all, text)
			}
		}
	}
	return all
}

// lowerEscapes is a percent-encoded text with small hexadecimal digits.
func lowerEscapes(s string) string {
	b := []byte(s)
	for i := 0; i+2 < len(b); i++ {
		if b[i] == '%' {
			copy(b[i+1:], strings.ToLower(s[i+1:i+3]))
		}
	}
	return string(b)
}

// maxError is the most that is left of an error, in octets: some clients put the page into it that
// the API has answered with.
const maxError = 4000

// redactError takes secrets out of an error, and makes it fit for a message: what is in it
// comes from the provider. Of one that holds some no more is left than its text, and what errors.Is reports
// of it: whoever could unwrap it could print it.
func redactError(err error, secrets []string) error {
	text := err.Error()
	clean := Redact(text, secrets)
	fit := foreign.Cut(clean, maxError) // only now, or a part of a secret might be left
	if clean == text {
		return foreign.WithText(err, fit)
	}
	return &redactedError{fit, err}
}

type redactedError struct {
	text string
	err  error
}

func (e *redactedError) Error() string { return e.text }

func (e *redactedError) Is(target error) bool { return errors.Is(e.err, target) }
