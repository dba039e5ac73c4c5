package record

import (
	"strings"
	"testing"
	"time"
)

func TestValueString(t *testing.T) {
	for _, tt := range []struct {
		value Value
		want  string
	}{
		{Value{IssuerDomainName: "CA.example.", AccountURI: testAccount}, "ca.example; accounturi=" + testAccount},
		{
			Value{IssuerDomainName: "ca.example", AccountURI: testAccount, Wildcard: true},
			"ca.example; accounturi=" + testAccount + "; policy=wildcard",
		},
		{
			Value{IssuerDomainName: "ca.example", AccountURI: testAccount, PersistUntil: time.Unix(1767225600, 999)},
			"ca.example; accounturi=" + testAccount + "; persistUntil=1767225600",
		},
		{
			Value{IssuerDomainName: "ca.example", AccountURI: testAccount, Wildcard: true, PersistUntil: time.Unix(0, 0)},
			"ca.example; accounturi=" + testAccount + "; policy=wildcard; persistUntil=0",
		},
	} {
		if got := tt.value.String(); got != tt.want {
			t.Errorf("String() = %q, want %q", got, tt.want)
		}
	}
}

func TestSplit(t *testing.T) {
	for n, want := range map[int][]int{
		0:   {0},
		1:   {1},
		254: {254},
		255: {255},
		256: {255, 1},
		510: {255, 255},
		511: {255, 255, 1},
	} {
		value := strings.Repeat("x", n)
		parts := Split(value)
		if len(parts) != len(want) {
			t.Errorf("%d octets: %d strings, want %d", n, len(parts), len(want))
			continue
		}
		for i, p := range parts {
			if len(p) != want[i] {
				t.Errorf("%d octets: string %d has %d, want %d", n, i, len(p), want[i])
			}
		}
		if strings.Join(parts, "") != value {
			t.Errorf("%d octets: the strings do not join to the value", n)
		}
	}
}

func TestQuote(t *testing.T) {
	for value, want := range map[string]string{
		"":                         `""`,
		"ca.example; accounturi=x": `"ca.example; accounturi=x"`,
		`a"b\c`:                    `"a\"b\\c"`,
		"tab\tend\x7f":             `"tab\009end\127"`,
		"\u00e9":                   `"\195\169"`,
		strings.Repeat("x", 256):   `"` + strings.Repeat("x", 255) + `" "x"`,
		// the escapes do not count towards the 255 octets
		strings.Repeat(`"`, 255): `"` + strings.Repeat(`\"`, 255) + `"`,
	} {
		if got := Quote(value); got != want {
			t.Errorf("Quote(%q) = %s, want %s", value, got, want)
		}
	}
}
