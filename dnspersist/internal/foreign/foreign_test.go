package foreign

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestText(t *testing.T) {
	long := strings.Repeat("ü", MaxText)
	for in, want := range map[string]string{
		"":                         "",
		"plain, \"quoted\" and ü":  "plain, \"quoted\" and ü",
		"\x1b[2J\x1b[31mred":       `\x1b[2J\x1b[31mred`,
		"a\nlevel=info msg=fake\r": `a\nlevel=info msg=fake\r`,
		"\u202egro.elpmaxe":        `\u202egro.elpmaxe`,
		"soft\u00adhyphen\ufeff":   `soft\u00adhyphen\ufeff`,
		"\u009b31m \u2028 \u2066":  `\u009b31m \u2028 \u2066`,
		"not \xff UTF-8":           `not \xff UTF-8`,
		"tags \U000e0041":          `tags \U000e0041`,
		`C:\temp`:                  `C:\temp`,
		long:                       strings.Repeat("ü", MaxText/2-20) + "... (1040 more octets)",
	} {
		if got := Text(in); got != want {
			t.Errorf("Text(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestErrorKeepsWhatItWraps(t *testing.T) {
	cause := errors.New("bad\x1b")
	if err := Error(cause); !errors.Is(err, cause) || err.Error() != `bad\x1b` {
		t.Errorf("%q", err)
	}
	if plain := errors.New("plain"); Error(plain) != plain || Error(nil) != nil { //nolint:errorlint // the very same
		t.Error("a plain error was changed")
	}
}

// FuzzForeign holds what others write against what a terminal and a log can bear.
func FuzzForeign(f *testing.F) {
	f.Add("\x1b[2J\u202e\u0085\xc2 \U000e0041")
	f.Add(strings.Repeat("\x00", 2000))
	f.Fuzz(func(t *testing.T, s string) {
		for _, got := range []string{Text(s), Quote(s, 100), Cut(s, 100)} {
			for _, r := range got {
				if r == utf8.RuneError && !strings.ContainsRune(s, r) || unicode.In(r, unicode.C, unicode.Zl, unicode.Zp) {
					t.Fatalf("%q became %q", s, got)
				}
			}
			if len(got) > MaxText || !utf8.ValidString(got) {
				t.Fatalf("%q became %q", s, got)
			}
		}
		if once := Text(s); Text(once) != once {
			t.Fatalf("%q is escaped twice", once)
		}
		data, err := json.Marshal(map[string]string{s: s})
		if err != nil {
			t.Fatal(err)
		}
		clean := JSON(data)
		for _, r := range string(clean) {
			if unicode.In(r, unicode.C, unicode.Zl, unicode.Zp) {
				t.Fatalf("%q holds %q", clean, r)
			}
		}
		var before, after map[string]string
		if json.Unmarshal(data, &before) != nil || json.Unmarshal(clean, &after) != nil || len(after) != 1 {
			t.Fatalf("%q is no JSON any more", clean)
		}
		for k, v := range before {
			if after[k] != v {
				t.Fatalf("%q became %q", v, after[k])
			}
		}
	})
}
