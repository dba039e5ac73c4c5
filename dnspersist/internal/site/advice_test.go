package site

import (
	"strings"
	"testing"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

// TestFind checks that near misses are replaced, and that what others have is left alone.
func TestFind(t *testing.T) {
	const account = "https://ca.example/acct/1"
	want := record.Requirement{IssuerDomainNames: []string{"ca.example"}, AccountURI: account}
	r := Record{Name: "_validation-persist.a.example", Value: "ca.example; accounturi=" + account}
	for name, tt := range map[string]struct {
		values []string
		do     []string
	}{
		"nothing":           {nil, nil},
		"good":              {[]string{r.Value}, nil},
		"good beside a bad": {[]string{r.Value, `"` + r.Value + `"`}, nil},
		"quotes":            {[]string{`"` + r.Value + `"`}, []string{"replace the value ", "by this one: " + r.Value, "the quotes are part of the value"}},
		"another's":         {[]string{"other.example; accounturi=x:y"}, []string{"publish beside what is published a TXT record at _validation-persist.a.example with this value: " + r.Value, "another issuer"}},
		"another account":   {[]string{"ca.example; accounturi=https://ca.example/acct/99"}, []string{"publish beside what is published", "this account is"}},
		"both":              {[]string{"v=spf1 -all", "ca.example"}, []string{"replace the value ca.example by", "comment"}},
		"four": {
			[]string{`"` + r.Value, r.Value + ";", "ca.example", "ca.example;"},
			[]string{"replace the values ", " and 1 more by "},
		},
	} {
		f := Find(r, want, propagation.Report{Values: tt.values})
		for _, part := range tt.do {
			if !strings.Contains(f.Do, part) {
				t.Errorf("%s: %q lacks %q", name, f.Do, part)
			}
		}
		if (f.Do == "") != (tt.do == nil) || (len(f.Values) == 0) != (tt.do == nil) {
			t.Errorf("%s: %+v", name, f)
		}
	}
	// what is copied out of a log, to the end, is the value: quotes would be escaped there
	if f := Find(r, want, propagation.Report{Values: []string{"ca.example"}}); !strings.HasSuffix(f.Do, ": "+r.Value) || strings.ContainsAny(f.Do, `"`) {
		t.Errorf("the advice is %q", f.Do)
	}
	hostile := "ca.example; accounturi=\x1b[31m\u202e" + strings.Repeat("é", 5000)
	if f := Find(r, want, propagation.Report{Values: []string{hostile}}); len(f.Do) > 1500 || strings.ContainsAny(f.Do, "\x1b\u202e") {
		t.Errorf("%d octets: %q", len(f.Do), f.Do)
	}
}

// TestMoved checks that advice and diagnosis say the same of a record in the wrong place.
func TestMoved(t *testing.T) {
	r := Record{Name: "_validation-persist.a.example"}
	found := []propagation.Diagnostic{{Code: propagation.CodeAbsent}, {Code: propagation.CodeWrongName, Place: "a.example"}}
	if got := Moved(r, found); got != "move the TXT record from a.example to _validation-persist.a.example" {
		t.Errorf("got %q", got)
	}
	if got := Moved(r, found[:1]); got != "" {
		t.Errorf("got %q", got)
	}
}
