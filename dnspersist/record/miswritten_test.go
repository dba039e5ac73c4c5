package record

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// TestMiswritten checks what people and panels make of a value: the reason names it, and the
// right value takes the place of such a one.
func TestMiswritten(t *testing.T) {
	const good = "ca.example; accounturi=" + testAccount + "; policy=wildcard"
	want := Requirement{IssuerDomainNames: []string{"ca.example"}, AccountURI: testAccount, Wildcard: true}
	for name, tt := range map[string]struct {
		txt    string
		code   Code
		reason string
	}{
		"quotes":                     {`"` + good + `"`, CodeMiswritten, reasonQuotes},
		"quotes of two strings":      {`"ca.example; accounturi=https://ca" ".example/acct/1; policy=wildcard"`, CodeMiswritten, reasonQuotes},
		"backslashes":                {strings.ReplaceAll(good, ";", `\;`), CodeMiswritten, reasonBackslashes},
		"quotes and backslashes":     {`"` + strings.ReplaceAll(good, ";", `\;`) + `"`, CodeMiswritten, reasonQuotes + "; " + reasonBackslashes},
		"curly quotes":               {"\u201c" + good + "\u201d", CodeMiswritten, reasonCurlyQuotes},
		"curly quotes, Windows-1252": {"\x93" + good + "\x94", CodeMiswritten, reasonCurlyQuotes},
		"guillemets":                 {"\u00ab" + good + "\u00bb", CodeMiswritten, reasonCurlyQuotes},
		"no-break spaces":            {strings.ReplaceAll(good, " ", "\u00a0"), CodeMalformed, reasonSpaces},
		"no-break space, Latin-1":    {strings.ReplaceAll(good, " ", "\xa0"), CodeMalformed, reasonSpaces},
		"zero-width space":           {strings.Replace(good, "; ", "; \u200b", 1), CodeMalformed, reasonSpaces},
		"commas":                     {strings.ReplaceAll(good, ";", ","), CodeMiswritten, reasonCommas},
		"first semicolon lost":       {strings.Replace(good, ";", "", 1), CodeMiswritten, reasonFirst},
		"first separator lost":       {strings.Replace(good, "; ", "", 1), CodeMiswritten, reasonFirst},
		"no issuer":                  {strings.TrimPrefix(good, "ca.example; "), CodeMiswritten, reasonNoIssuer},
		"no issuer but a semicolon":  {strings.TrimPrefix(good, "ca.example"), CodeMiswritten, reasonNoIssuer},
		"cut":                        {"ca.example", CodeMalformed, reasonCut},
		"cut behind the semicolon":   {"ca.example;", CodeMalformed, reasonCut},
		"cut, with the first quote":  {`"ca.example`, CodeMiswritten, reasonQuotes + "; " + reasonCut},
		"line of a zone":             {"_validation-persist.a.example. 3600 IN TXT " + Quote(good), CodeMiswritten, reasonZoneLine},
		"line of a zone, tabs":       {"_validation-persist\tTXT\t" + good, CodeMiswritten, reasonZoneLine},

		"good":                  {good, CodeGood, ""},
		"no policy":             {strings.TrimSuffix(good, "; policy=wildcard"), CodePolicyMissing, "policy=wildcard is missing"},
		"a letter more":         {strings.Replace(good, "acct/1", "acct/12", 1), CodeWrongAccount, "where 2 is published and nothing belongs"},
		"a digit exchanged":     {strings.Replace(good, "acct/1", "acct/7", 1), CodeWrongAccount, "differ behind xample/acct/ where 7 is published and 1 belongs"},
		"a letter in front":     {strings.Replace(good, "https", "xhttps", 1), CodeWrongAccount, "differ at the beginning where x is published and nothing belongs"},
		"http for https":        {strings.Replace(good, "https", "http", 1), CodeWrongAccount, "differ behind http where nothing is published and s belongs"},
		"another account":       {strings.Replace(good, "acct/1", "acct/7654321", 1), CodeWrongAccount, "differ behind xample/acct/ where 7654321 is published and 1 belongs"},
		"our account elsewhere": {strings.Replace(good, "ca.example;", "cb.example;", 1), CodeWrongIssuer, "names this account"},
	} {
		t.Run(name, func(t *testing.T) {
			r := Evaluate([]string{tt.txt}, want, time.Unix(1_800_000_000, 0))
			v := r.Verdicts[0]
			if v.Code != tt.code || !strings.Contains(v.Reason(), tt.reason) || (tt.reason == "") != (v.Reason() == "") {
				t.Errorf("%q: %s, %q; want %s, %q", tt.txt, v.Code, v.Reason(), tt.code, tt.reason)
			}
			if tt.code == CodeMiswritten && v.Reason() != tt.reason {
				t.Errorf("%q: reason %q, want exactly %q", tt.txt, v.Reason(), tt.reason)
			}
			if v.IsNearMiss() != (tt.code != CodeGood && !strings.Contains(tt.txt, "acct/7")) {
				t.Errorf("%q: IsNearMiss() = %v", tt.txt, v.IsNearMiss())
			}
		})
	}
}

// TestNotMiswritten checks that what others publish is left to them.
func TestNotMiswritten(t *testing.T) {
	want := Requirement{IssuerDomainNames: []string{"ca.example"}, AccountURI: testAccount}
	for _, txt := range []string{
		"v=spf1 include:ca.example -all", "ca.example-site-verification=abc", "accounturi=https://other.example/1",
		"other.example; accounturi=https://other.example/acct/9", `"other.example; accounturi=https://other.example/acct/9"`,
		"ca.example; accounturi=https://ca.example/acct/4711", "", "\x93\x94\xff", "TXT", "accounturi",
	} {
		v := Evaluate([]string{txt}, want, time.Unix(0, 0)).Verdicts[0]
		if v.IsNearMiss() {
			t.Errorf("%q: %s (%s) counts as meant for us", txt, v.Code, v.Reason())
		}
	}
}

func TestMisplacements(t *testing.T) {
	var got []string
	for _, m := range Misplacements("*.Shop.example.com", "example.com") {
		got = append(got, m.Name)
		if m.Why == "" {
			t.Errorf("%s: no reason", m.Name)
		}
	}
	for _, want := range []string{
		"_validation-persist.*.shop.example.com", "_validation-persist.shop.example.com.example.com", "_validation_persist.shop.example.com",
		"_acme-challenge.shop.example.com", "validation-persist.shop.example.com", "shop.example.com", "_validation-persist.example.com",
		"_validation-persist.www.shop.example.com",
	} {
		if !slices.Contains(got, want) {
			t.Errorf("%q lacks %s", got, want)
		}
	}
	if slices.Contains(got, "_validation-persist.shop.example.com") || len(got) > 16 {
		t.Errorf("%d places: %q", len(got), got)
	}
	if Misplacements("192.0.2.1", "example.com") != nil {
		t.Error("places for an address")
	}
	for _, m := range Misplacements("a.b.example.com", "b.example.com") {
		if !strings.HasSuffix(m.Name, "b.example.com") {
			t.Errorf("%s is outside the zone", m.Name)
		}
	}
}

// FuzzMiswritten checks that no value makes the search fail, and that a good one is never
// called a near miss.
func FuzzMiswritten(f *testing.F) {
	for _, seed := range []string{"\u201cca.example; accounturi=" + testAccount + "\u201d", "ca.example", "x TXT \"", "accounturi", "\x93ca.example,accounturi=x:y"} {
		f.Add(seed)
	}
	want := Requirement{IssuerDomainNames: []string{"ca.example"}, AccountURI: testAccount}
	f.Fuzz(func(t *testing.T, txt string) {
		v := Evaluate([]string{txt}, want, time.Unix(0, 0)).Verdicts[0]
		if v.IsNearMiss() && v.Outlook == OutlookGood {
			t.Errorf("%q is good and a near miss", txt)
		}
		if v.IsNearMiss() && v.Reason() == "" {
			t.Errorf("%q: a near miss without a reason", txt)
		}
	})
}
