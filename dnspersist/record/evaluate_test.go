package record

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestEvaluate(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	const good = "ca.example; accounturi=" + testAccount
	want := Requirement{IssuerDomainNames: []string{"ca.example", "ca2.example"}, AccountURI: testAccount}
	wild := want
	wild.Wildcard = true
	tests := map[string]struct {
		txt    string
		want   Requirement
		code   Code
		reason string
	}{
		"good":                       {good, want, CodeGood, ""},
		"good under another name":    {"ca2.example; accounturi=" + testAccount, want, CodeGood, ""},
		"good with policy":           {good + "; policy=wildcard", want, CodeGood, ""},
		"good with other policy":     {good + "; policy=x", want, CodeGood, ""},
		"wildcard":                   {good + "; policy=Wildcard", wild, CodeGood, ""},
		"wildcard without policy":    {good, wild, CodePolicyMissing, "policy=wildcard is missing"},
		"wildcard with other policy": {good + "; policy=x", wild, CodePolicyMissing, "policy=x counts as none"},
		"wildcard with empty policy": {good + "; policy=", wild, CodePolicyMissing, "policy=wildcard is missing"},
		"until now":                  {good + "; persistUntil=1800000000", want, CodeGood, ""},
		"until a second ago":         {good + "; persistUntil=1799999999", want, CodeExpired, "is past"},
		"until before 1970":          {good + "; persistUntil=-5", want, CodeExpired, "is past"},
		// time.Unix wraps around at the far end, at Pebble as here.
		"until the greatest number":      {good + "; persistUntil=9223372036854775807", want, CodeExpired, "is past"},
		"wrong account":                  {"ca.example; accounturi=https://ca.example/acct/2", want, CodeWrongAccount, "/acct/2"},
		"account in other case":          {"ca.example; accounturi=https://CA.example/acct/1", want, CodeWrongAccount, "CA.example"},
		"account with a slash more":      {good + "/", want, CodeWrongAccount, "/acct/1/"},
		"another CA":                     {"other.example; accounturi=" + testAccount, want, CodeWrongIssuer, "names this account, whose CA is ca.example or ca2.example"},
		"another CA's own":               {"other.example; accounturi=https://other.example/1", want, CodeWrongIssuer, "another issuer: other.example"},
		"another CA, malformed":          {"other.example; x", want, CodeForeign, "other.example"},
		"SPF":                            {"v=spf1 include:example.net -all", want, CodeForeign, "not a record of this kind"},
		"empty":                          {"", want, CodeForeign, "names no issuer"},
		"control characters":             {"\x1b[31m; x", want, CodeForeign, "not a record of this kind"},
		"malformed":                      {good + ";", want, CodeMalformed, "semicolon"},
		"account missing":                {"ca.example; policy=wildcard", want, CodeMalformed, "accounturi is missing"},
		"malformed comes before account": {"ca.example; accounturi=x:y;", want, CodeMalformed, "semicolon"},
		"quotes in the value":            {`"` + good + `"`, want, CodeMiswritten, "quotes are part of the value"},
		"escaped semicolons":             {`ca.example\; accounturi=` + testAccount, want, CodeMiswritten, "backslashes"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := Evaluate([]string{tt.txt}, tt.want, now)
			if len(r.Verdicts) != 1 {
				t.Fatalf("%d verdicts, want 1", len(r.Verdicts))
			}
			v := r.Verdicts[0]
			if v.Code != tt.code || v.Text != tt.txt {
				t.Errorf("Evaluate(%q) = %+v, want %s", tt.txt, v, tt.code)
			}
			if (v.Reason() == "") != (tt.code == CodeGood) || !strings.Contains(v.Reason(), tt.reason) {
				t.Errorf("reason %q, want %q", v.Reason(), tt.reason)
			}
			if strings.ContainsFunc(v.Reason(), func(c rune) bool { return c < ' ' }) {
				t.Errorf("reason %q holds control characters", v.Reason())
			}
			if r.Good() != (tt.code == CodeGood) {
				t.Errorf("Good() = %v with %s", r.Good(), tt.code)
			}
			if r.Explain() != v.Reason() {
				t.Errorf("Explain() = %q, want %q", r.Explain(), v.Reason())
			}
		})
	}
}

// TestEvaluateMany checks that one good value is enough whatever is beside it, and
// that the explanation is of the closest one.
func TestEvaluateMany(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	want := Requirement{IssuerDomainNames: []string{"ca.example"}, AccountURI: testAccount, Wildcard: true}
	const (
		foreign   = "other.example; accounturi=x:y"
		wrong     = "ca.example; accounturi=x:y"
		malformed = "ca.example; accounturi=x:y;"
		expired   = "ca.example; accounturi=" + testAccount + "; policy=wildcard; persistUntil=5"
		noPolicy  = "ca.example; accounturi=" + testAccount
		good      = noPolicy + "; policy=wildcard"
	)
	for _, tt := range []struct {
		txts []string
		code Code
	}{
		{[]string{foreign, foreign}, CodeWrongIssuer},
		{[]string{foreign, wrong}, CodeWrongAccount},
		{[]string{malformed, wrong}, CodeMalformed},
		{[]string{malformed, expired}, CodeExpired},
		{[]string{noPolicy, expired, foreign}, CodePolicyMissing},
		{[]string{malformed, wrong, foreign, expired, noPolicy, good}, CodeGood},
		{[]string{good, malformed}, CodeGood},
		{[]string{good, good}, CodeGood},
	} {
		r := Evaluate(tt.txts, want, now)
		v, ok := r.closest()
		if !ok || v.Code != tt.code {
			t.Errorf("%q: closest is %+v, want %s", tt.txts, v, tt.code)
		}
		if r.Good() != (tt.code == CodeGood) || (r.Explain() == "") != r.Good() {
			t.Errorf("%q: Good() = %v, Explain() = %q", tt.txts, r.Good(), r.Explain())
		}
		for i, v := range r.Verdicts {
			if v.Text != tt.txts[i] {
				t.Errorf("%q: verdict %d is of %q", tt.txts, i, v.Text)
			}
		}
	}
	none := Evaluate(nil, want, now)
	if _, ok := none.closest(); ok || none.Good() || none.Explain() != "no TXT record" {
		t.Errorf("without values: Good() = %v, Explain() = %q", none.Good(), none.Explain())
	}
}

// TestExplainForeign checks the explanation of several values that are all not this CA's.
func TestExplainForeign(t *testing.T) {
	want := Requirement{IssuerDomainNames: []string{"ca.example"}, AccountURI: testAccount}
	of := func(issuers ...string) (txts []string) {
		for _, issuer := range issuers {
			txts = append(txts, issuer+"; accounturi="+testAccount)
		}
		return txts
	}
	for name, tt := range map[string]struct {
		txts []string
		want string
	}{
		"two issuers":          {of("B.example.", "a.example"), "records of other issuers only: b.example, a.example"},
		"one issuer twice":     {of("b.example", "B.example"), "records of other issuers only: b.example"},
		"beside other records": {append(of("b.example"), "v=spf1 include:c.example -all"), "records of other issuers only: b.example"},
		"no issuer at all":     {[]string{"v=spf1 -all", "\x1b[31m"}, "2 TXT records, none of them of this kind"},
		"many issuers": {
			of("a.a", "b.b", "c.c", "d.d", "e.e", "f.f", "g.g"),
			"records of other issuers only: a.a, b.b, c.c, d.d, e.e and 2 more",
		},
		"quotes beside another":      {append(of("b.example"), `"`+of("ca.example")[0]+`"`), reasonQuotes},
		"backslashes beside another": {append(of("b.example"), `ca.example\; accounturi=x:y`), reasonBackslashes},
	} {
		if got := Evaluate(tt.txts, want, time.Unix(0, 0)).Explain(); got != tt.want {
			t.Errorf("%s: Explain() = %q, want %q", name, got, tt.want)
		}
	}
}

// BenchmarkEvaluate judges ten values such as a busy name has. The goal is less
// than 5 µs.
func BenchmarkEvaluate(b *testing.B) {
	txts := []string{"v=spf1 -all", "some-verification=0123456789abcdef"}
	for i := range 7 {
		txts = append(txts, fmt.Sprintf("ca%d.example; accounturi=https://ca%d.example/acct/1; policy=wildcard; persistUntil=1900000000", i, i))
	}
	txts = append(txts, "ca.example; accounturi="+testAccount+"; policy=wildcard; persistUntil=1900000000")
	want := Requirement{IssuerDomainNames: []string{"ca.example"}, AccountURI: testAccount, Wildcard: true}
	now := time.Unix(1_800_000_000, 0)
	b.ReportAllocs()
	for b.Loop() {
		if !Evaluate(txts, want, now).Good() {
			b.Fatal("not good")
		}
	}
}
