package command

import (
	"strings"
	"testing"
)

// What somebody copies is never broken, and all else fits.
func TestWrap(t *testing.T) {
	value := `"ca.example; accounturi=https://ca.example/acct/1; policy=wildcard"`
	line := `_validation-persist.www.example.com. 3600 IN TXT ` + value
	for _, c := range []struct {
		columns           int
		label, text, want string
	}{
		{0, "    do      ", "publish " + line, "    do      publish " + line + "\n"},
		{30, "    do  ", "one two three four five six seven", "    do  one two three four\n        five six seven\n"},
		{30, "", "one two three four five six seven", "one two three four five six\n    seven\n"},
		{40, "    found   ", value, "    found\n" + value + "\n"},
		{90, "    found   ", value, "    found   " + value + "\n"},
		{
			80, "    do      ", "replace the value " + value + " by " + line + "; the quotes are part of the value",
			"    do      replace the value\n            " + value + "\n            by\n" + line + "\n            the quotes are part of the value\n",
		},
		{40, "", "publish this value: " + value[1:len(value)-1], "publish this value:\n" + value[1:len(value)-1] + "\n"},
		{30, "", "let it set " + "a.example. 3600 IN CNAME b.c.example. and wait", "let it set\na.example. 3600 IN CNAME b.c.example.\n    and wait\n"},
		{18, "", "日本語日本語 日本語", "日本語日本語\n    日本語\n"},
		{20, "", `an odd " quote in it`, "an odd \" quote in it\n"},
		{20, "x   ", "", "x\n"},
		{20, "", "", ""},
	} {
		var b strings.Builder
		wrap(&b, c.columns, c.label, c.text)
		if b.String() != c.want {
			t.Errorf("%q in %d columns:\n%s\nwant\n%s", c.text, c.columns, b.String(), c.want)
		}
	}
}

func TestFit(t *testing.T) {
	for _, c := range []struct {
		columns    int
		text, want string
	}{
		{10, "short", "short"},
		{10, "0123456789", "0123456789"},
		{10, "01234567890", "012345678…"},
		{5, "日本語", "日本…"},
		{4, "\x1b[31mgood\x1b[0m", "\x1b[31mgood\x1b[0m"},
	} {
		if got := fit(c.text, c.columns); got != c.want {
			t.Errorf("%q in %d columns is %q, want %q", c.text, c.columns, got, c.want)
		}
	}
}
