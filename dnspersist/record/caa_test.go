package record

import (
	"strings"
	"testing"
)

func TestForbiddenByCAA(t *testing.T) {
	want := CAAWant{IssuerDomainNames: []string{"ca.example"}, Method: "dns-persist-01", AccountURL: "https://ca.example/acct/1"}
	wild := want
	wild.Wildcard = true
	issue := func(values ...string) (list []CAA) {
		for _, v := range values {
			list = append(list, CAA{Tag: "issue", Value: v})
		}
		return list
	}
	for name, tt := range map[string]struct {
		records []CAA
		want    CAAWant
		reason  string
	}{
		"no records":                {nil, want, ""},
		"only iodef":                {[]CAA{{Tag: "iodef", Value: "mailto:x@example.com"}}, want, ""},
		"this CA":                   {issue("ca.example"), want, ""},
		"this CA in other letters":  {issue(" CA.Example. "), want, ""},
		"another CA":                {issue("other.example"), want, `issue "other.example" allows another CA`},
		"nobody":                    {issue(";"), want, "allows no CA"},
		"one of several":            {issue("other.example", "ca.example"), want, ""},
		"method listed":             {issue("ca.example; validationmethods=http-01,dns-persist-01"), want, ""},
		"method missing":            {issue("ca.example; validationmethods=dns-01"), want, "does not list dns-persist-01"},
		"our account":               {issue("ca.example; accounturi=https://ca.example/acct/1"), want, ""},
		"another account":           {issue("ca.example; accounturi=https://ca.example/acct/2"), want, "another account"},
		"one allows the account":    {issue("ca.example; accounturi=x:y", "ca.example;accounturi=https://ca.example/acct/1"), want, ""},
		"unknown parameter":         {issue("ca.example; cansignhttpexchanges=yes"), want, ""},
		"malformed parameter":       {issue("ca.example; x"), want, "malformed"},
		"wildcard by issue":         {issue("ca.example"), wild, ""},
		"wildcard by issuewild":     {append(issue("ca.example"), CAA{Tag: "IssueWild", Value: ";"}), wild, "issuewild"},
		"issuewild and a plain one": {append(issue("ca.example"), CAA{Tag: "issuewild", Value: ";"}), want, ""},
		"issuewild only, plain":     {[]CAA{{Tag: "issuewild", Value: ";"}}, want, ""},
		"unknown critical tag":      {[]CAA{{Critical: true, Tag: "tbs", Value: "x"}}, want, `"tbs" is critical`},
		"unknown tag":               {[]CAA{{Tag: "tbs", Value: "x"}}, want, ""},
	} {
		got := ForbiddenByCAA(tt.records, tt.want)
		if (got == "") != (tt.reason == "") || !strings.Contains(got, tt.reason) {
			t.Errorf("%s: %q, want %q", name, got, tt.reason)
		}
	}
}
