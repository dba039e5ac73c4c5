package record

import (
	"strings"
	"testing"
)

const (
	caaIssuer  = "ca.example"
	caaAccount = "https://acme-v02.api.ca.example/acme/acct/17"
)

var caaWant = CAARequest{IssuerDomainNames: []string{caaIssuer}, Method: "dns-persist-01", AccountURL: caaAccount}

func issue(values ...string) (list []CAA) {
	for _, v := range values {
		list = append(list, CAA{Tag: "issue", Value: v})
	}
	return list
}

// The outcomes are those of Boulder's own functions; where RFC 8659, RFC 8657 or the Baseline
// Requirements have it otherwise, it depends.
func TestEvaluateCAA(t *testing.T) {
	wild := caaWant
	wild.Wildcard = true
	const good, depends, bad = OutlookGood, OutlookDepends, OutlookBad
	for name, tt := range map[string]struct {
		records []CAA
		want    CAARequest
		outlook Outlook
		reason  string
	}{
		"no records":            {nil, caaWant, good, ""},
		"only iodef":            {[]CAA{{Tag: "iodef", Value: "mailto:x@example.com"}}, caaWant, good, ""},
		"this CA":               {issue("ca.example"), caaWant, good, ""},
		"with white space":      {issue(" \tca.example "), caaWant, good, ""},
		"other letters":         {issue("CA.Example"), caaWant, depends, "in other letters than ca.example"},
		"a final dot":           {issue("ca.example."), caaWant, depends, "final dot"},
		"and written well":      {issue("CA.Example", "ca.example"), caaWant, good, ""},
		"another CA":            {issue("other.example"), caaWant, bad, `issue "other.example" allows another CA`},
		"a domain below":        {issue("www.ca.example"), caaWant, bad, "another CA"},
		"nobody":                {issue(";"), caaWant, bad, "allows no CA"},
		"nobody, empty":         {issue(""), caaWant, bad, "allows no CA"},
		"one of several":        {issue("other.example", "ca.example"), caaWant, good, ""},
		"nobody is not a veto":  {issue(";", "ca.example"), caaWant, good, ""},
		"the tag in capitals":   {[]CAA{{Tag: "ISSUE", Value: "other.example"}}, caaWant, bad, "another CA"},
		"critical, but known":   {[]CAA{{Flags: 128, Tag: "issue", Value: "ca.example"}}, caaWant, good, ""},
		"all flags":             {[]CAA{{Flags: 255, Tag: "issue", Value: "ca.example"}}, caaWant, good, ""},
		"many of others":        {issue("a.a", "b.b", "c.c", "d.d", "e.e", "f.f", "g.g"), caaWant, bad, "and 2 more"},
		"a long one of another": {issue(strings.Repeat("x", 70000)), caaWant, bad, "allows another CA"},

		// parameters that no CA has to know
		"unknown parameter":          {issue("ca.example; cansignhttpexchanges=yes"), caaWant, good, ""},
		"an empty value":             {issue("ca.example; x="), caaWant, good, ""},
		"= in a value":               {issue("ca.example; x=a=b"), caaWant, good, ""},
		"a hyphen in a tag":          {issue("ca.example; x-y=z"), caaWant, depends, "hyphen"},
		"an unknown parameter twice": {issue("ca.example; x=1; x=2"), caaWant, depends, "twice"},

		// syntax
		"a final semicolon behind the issuer":    {issue("ca.example;"), caaWant, good, ""},
		"a final semicolon behind a parameter":   {issue("ca.example; accounturi=" + caaAccount + ";"), caaWant, bad, "nothing behind a semicolon"},
		"two semicolons":                         {issue("ca.example;;"), caaWant, bad, "nothing behind a semicolon"},
		"two semicolons between":                 {issue("ca.example;; accounturi=" + caaAccount), caaWant, bad, "nothing behind a semicolon"},
		"no semicolon behind the issuer":         {issue("ca.example accounturi=" + caaAccount), caaWant, bad, "another CA"},
		"no semicolon between":                   {issue("ca.example; accounturi=" + caaAccount + " validationmethods=dns-persist-01"), caaWant, bad, "holds"},
		"no value":                               {issue("ca.example; x"), caaWant, bad, "has no ="},
		"no tag":                                 {issue("ca.example; =x"), caaWant, bad, "not a tag"},
		"an underscore in a tag":                 {issue("ca.example; x_y=z"), caaWant, bad, "not a tag"},
		"a tag that ends with a hyphen":          {issue("ca.example; x-=z"), caaWant, bad, "not a tag"},
		"white space in a tag":                   {issue("ca.example; x y=z"), caaWant, bad, "not a tag"},
		"white space in an unknown value":        {issue("ca.example; x=y z"), caaWant, bad, "holds"},
		"no ASCII in an unknown value":           {issue("ca.example; x=ü"), caaWant, bad, "allows nobody"},
		"a tag that is no ASCII":                 {issue("ca.example; ü=x"), caaWant, bad, "not a tag"},
		"a terminal's escape":                    {issue("ca.example; \x1b[2J=x"), caaWant, bad, `\x1b[2J`},
		"bad syntax beside a good one":           {issue("ca.example; x", "ca.example"), caaWant, good, ""},
		"of another CA":                          {issue("other.example; x"), caaWant, bad, "allows nobody"},
		"accounturi twice":                       {issue("ca.example; accounturi=" + caaAccount + "; accounturi=" + caaAccount), caaWant, bad, "twice"},
		"validationmethods twice":                {issue("ca.example; validationmethods=dns-persist-01; validationmethods=dns-01"), caaWant, bad, "twice"},
		"a space between methods":                {issue("ca.example; validationmethods=dns-01, dns-persist-01"), caaWant, bad, "holds"},
		"an empty method":                        {issue("ca.example; validationmethods=dns-persist-01,"), caaWant, bad, "not a method"},
		"an empty list":                          {issue("ca.example; validationmethods="), caaWant, bad, "not a method"},
		"an underscore in a method":              {issue("ca.example; validationmethods=dns_01,dns-persist-01"), caaWant, bad, `"dns_01" in validationmethods`},
		"the method of an unknown, not in ASCII": {issue("ca.example; validationmethods=dns-persist-01,ü"), caaWant, bad, "allows nobody"},

		// RFC 8657
		"method listed":              {issue("ca.example; validationmethods=http-01,dns-persist-01"), caaWant, good, ""},
		"method missing":             {issue("ca.example; validationmethods=dns-01"), caaWant, bad, "does not list dns-persist-01"},
		"from when that counts":      {issue("ca.example; validationmethods=dns-01"), caaWant, bad, "15 March 2027"},
		"the method in capitals":     {issue("ca.example; validationmethods=DNS-PERSIST-01"), caaWant, depends, "compare octets"},
		"the CAs' common name":       {issue("ca.example; validationmethods=ca-tbr-22"), caaWant, depends, "should know from 15 March 2027"},
		"and ours":                   {issue("ca.example; validationmethods=ca-tbr-22,dns-persist-01"), caaWant, good, ""},
		"another common name":        {issue("ca.example; validationmethods=ca-tbr-7"), caaWant, bad, "does not list"},
		"the tag in other letters":   {issue("ca.example; ValidationMethods=dns-01"), caaWant, depends, "small letters"},
		"and what we want":           {issue("ca.example; ValidationMethods=dns-persist-01"), caaWant, good, ""},
		"our account":                {issue("ca.example; accounturi=" + caaAccount), caaWant, good, ""},
		"another account":            {issue("ca.example; accounturi=https://acme-v02.api.ca.example/acme/acct/18"), caaWant, bad, "another account"},
		"another CA's account":       {issue("ca.example; accounturi=https://other.example/acme/acct/17"), caaWant, bad, "another account"},
		"one allows the account":     {issue("ca.example; accounturi=x:y", "ca.example;accounturi="+caaAccount), caaWant, good, ""},
		"accounturi in capitals":     {issue("ca.example; ACCOUNTURI=x:y"), caaWant, depends, "small letters"},
		"both ways":                  {issue("ca.example; accounturi=" + caaAccount + "; AccountURI=x:y"), caaWant, depends, "small letters"},
		"the account's earlier URL":  {issue("ca.example; accounturi=https://acme-v01.api.ca.example/acme/reg/17"), caaWant, depends, "same number"},
		"a parent account":           {issue("ca.example; accounturi=https://ca.example/acct/17"), withAccount("https://ca.example/acct/17/sub/4"), depends, "parent account"},
		"half of an account's URL":   {issue("ca.example; accounturi=https://acme-v02.api.ca.example/acme/acct/1"), caaWant, bad, "another account"},
		"the CA alone":               {issue("ca.example; accounturi=https://acme-v02.api.ca.example"), caaWant, bad, "another account"},
		"acct":                       {issue("ca.example; accounturi=acct:me@ca.example"), caaWant, depends, "acct:"},
		"the account and no method":  {issue("ca.example; accounturi=" + caaAccount + "; validationmethods=dns-01"), caaWant, bad, "does not list"},
		"doubtful twice, bad once":   {issue("CA.EXAMPLE; accounturi=acct:me@ca.example; validationmethods=dns-01"), caaWant, bad, "does not list"},
		"doubtful beside another CA": {issue("other.example", "CA.EXAMPLE"), caaWant, depends, "in other letters"},

		// wildcards
		"wildcard by issue":         {issue("ca.example"), wild, good, ""},
		"wildcard by issuewild":     {append(issue("ca.example"), CAA{Tag: "IssueWild", Value: ";"}), wild, bad, "issuewild"},
		"issuewild and a plain one": {append(issue("ca.example"), CAA{Tag: "issuewild", Value: ";"}), caaWant, good, ""},
		"issuewild only, plain":     {[]CAA{{Tag: "issuewild", Value: ";"}}, caaWant, good, ""},

		// tags that not every CA knows
		"unknown critical tag":          {[]CAA{{Flags: 128, Tag: "tbs", Value: "x"}}, caaWant, bad, `"tbs" is critical`},
		"beside one that allows":        {append(issue("ca.example"), CAA{Flags: 128, Tag: "tbs"}), caaWant, bad, `"tbs" is critical`},
		"unknown tag":                   {[]CAA{{Tag: "tbs", Value: "x"}}, caaWant, good, ""},
		"unknown tag with the flag 1":   {append(issue("ca.example"), CAA{Flags: 1, Tag: "tbs"}), caaWant, depends, "flag 1"},
		"unknown tag with the flag 2":   {[]CAA{{Flags: 2, Tag: "tbs", Value: "x"}}, caaWant, good, ""},
		"a critical contact":            {append(issue("ca.example"), CAA{Flags: 128, Tag: "contactemail", Value: "a@b.example"}), caaWant, depends, "not every CA knows it"},
		"a critical phone number":       {[]CAA{{Flags: 128, Tag: "ContactPhone", Value: "1"}}, caaWant, depends, "not every CA knows it"},
		"a contact":                     {[]CAA{{Tag: "contactemail", Value: "a@b.example"}}, caaWant, good, ""},
		"critical iodef":                {[]CAA{{Flags: 128, Tag: "iodef", Value: "mailto:a@b.example"}}, caaWant, good, ""},
		"a critical contact, no issuer": {append(issue(";"), CAA{Flags: 128, Tag: "contactemail"}), caaWant, bad, "allows no CA"},
	} {
		got := EvaluateCAA(tt.records, tt.want)
		if got.Outlook != tt.outlook || (got.Reason == "") != (tt.outlook == good) || !strings.Contains(got.Reason, tt.reason) || len(got.Reason) > 2000 {
			t.Errorf("%s: %s, %q, want %s, %q", name, got.Outlook, got.Reason, tt.outlook, tt.reason)
		}
	}
}

func withAccount(url string) CAARequest {
	want := caaWant
	want.AccountURL = url
	return want
}

// FuzzEvaluateCAA judges what anybody may write as CAA records.
func FuzzEvaluateCAA(f *testing.F) {
	f.Add(uint8(0), "issue", "ca.example; accounturi="+caaAccount, "ca.example", false)
	f.Add(uint8(128), "tbs\x1b", "CA.example.; validationmethods=ca-tbr-22", ";", true)
	f.Add(uint8(1), "issuewild", "ca.example; x=1; x=2;", "ca.example; ACCOUNTURI=acct:a", true)
	f.Fuzz(func(t *testing.T, flags uint8, tag, value, second string, wildcard bool) {
		want := caaWant
		want.Wildcard = wildcard
		one := []CAA{{Flags: flags, Tag: tag, Value: value}}
		rank := func(records ...CAA) int {
			v := EvaluateCAA(records, want)
			if (v.Reason == "") != (v.Outlook == OutlookGood) || len(v.Reason) > 2500 {
				t.Fatalf("%q: %+v", records, v)
			}
			for _, r := range v.Reason {
				if r < ' ' || r > '~' && !strings.ContainsRune(value+second+tag, r) {
					t.Fatalf("the reason %q holds %q", v.Reason, r)
				}
			}
			return outlookRank[v.Outlook]
		}
		if tagged := strings.ToLower(tag); tagged == "issue" || tagged == "issuewild" {
			// one that allows is enough, whatever is beside it
			if rank(one[0], CAA{Tag: tag, Value: second}, CAA{Tag: tag, Value: caaIssuer}) != rank() {
				t.Fatalf("a record that allows the CA does not count beside %q", value)
			}
		}
		// an unknown tag without flags says nothing
		if rank(one[0], CAA{Tag: "tbs", Value: second}) != rank(one...) {
			t.Fatalf("an unknown tag counts beside %q", value)
		}
	})
}
