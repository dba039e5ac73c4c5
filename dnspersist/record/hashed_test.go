package record

import (
	"strings"
	"testing"
	"time"
)

// The inputs of the example in section 10.2 of draft -02, which Posh-ACME and Certes test
// with, too. The thumbprint is that of RFC 7638 section 3.1.
const (
	vectorThumbprint = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
	vectorURL        = "https://ca.example/acct/123"
	vectorPrefix     = "https://ca.example/account-hash/"
	vectorURI        = vectorPrefix + "sha-256/5SQm7n6tPh2-PlLbCKGnViTXX5z19SCN4cPGQHSk-kw"
	vectorAny        = vectorPrefix + "sha-256/NpDnSwUthQK8zCgFdefYxAdAVPnygMLbs9US6oO-5ug"
)

func TestHashedAccountURI(t *testing.T) {
	for name, tt := range map[string]struct{ prefix, domain, thumbprint, url, want string }{
		"section 10.2":               {vectorPrefix, "example.com", vectorThumbprint, vectorURL, vectorURI},
		"section 10.2, any domain":   {vectorPrefix, AnyDomain, vectorThumbprint, vectorURL, vectorAny},
		"wildcard, case, final dot":  {vectorPrefix, "*.Example.COM.", vectorThumbprint, vectorURL, vectorURI},
		"prefix is kept as it is":    {"https://CA.example/hash/%2f", "example.com", vectorThumbprint, vectorURL, "https://CA.example/hash/%2fsha-256/5SQm7n6tPh2-PlLbCKGnViTXX5z19SCN4cPGQHSk-kw"},
		"a-label":                    {vectorPrefix, "xn--bcher-kva.de", vectorThumbprint, vectorURL, mustHash(t, "bücher.de.", vectorThumbprint, vectorURL)},
		"case of the account URL":    {vectorPrefix, "example.com", vectorThumbprint, "https://CA.example/acct/123", vectorPrefix + "sha-256/" + digest("example.com", vectorThumbprint, "https://CA.example/acct/123")},
		"semicolon in the input":     {vectorPrefix, "example.com", vectorThumbprint, vectorURL + ";id=1", vectorPrefix + "sha-256/" + digest("example.com", vectorThumbprint, vectorURL+";id=1")},
		"longest name":               {vectorPrefix, nameOf(233), vectorThumbprint, vectorURL, vectorPrefix + "sha-256/" + digest(nameOf(233), vectorThumbprint, vectorURL)},
		"underscore label":           {vectorPrefix, "_x.example.com", vectorThumbprint, vectorURL, vectorPrefix + "sha-256/" + digest("_x.example.com", vectorThumbprint, vectorURL)},
		"longer account URL":         {vectorPrefix, "example.com", vectorThumbprint, vectorURL + strings.Repeat("9", 700), vectorPrefix + "sha-256/" + digest("example.com", vectorThumbprint, vectorURL+strings.Repeat("9", 700))},
		"prefix without final slash": {"https://ca.example/h", "example.com", vectorThumbprint, vectorURL, "https://ca.example/hsha-256/5SQm7n6tPh2-PlLbCKGnViTXX5z19SCN4cPGQHSk-kw"},
	} {
		got, err := HashedAccountURI(tt.prefix, tt.domain, tt.thumbprint, tt.url)
		if err != nil || got != tt.want {
			t.Errorf("%s: HashedAccountURI = %q, %v; want %q", name, got, err, tt.want)
		}
		if err := ValidAccountURI(got); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	// each input has its part in the hash
	for name, other := range map[string]string{
		"name": digest("other.example.com", vectorThumbprint, vectorURL), "key": digest("example.com", strings.Repeat("A", 43), vectorURL),
		"account": digest("example.com", vectorThumbprint, "https://CA.example/acct/123"),
	} {
		if strings.HasSuffix(vectorURI, other) {
			t.Errorf("the %s does not change the hash", name)
		}
	}
}

func mustHash(t *testing.T, domain, thumbprint, url string) string {
	t.Helper()
	uri, err := HashedAccountURI(vectorPrefix, domain, thumbprint, url)
	if err != nil {
		t.Fatal(err)
	}
	return uri
}

func TestHashedAccountURIRefuses(t *testing.T) {
	for name, tt := range map[string]struct{ prefix, domain, thumbprint, url, want string }{
		"no prefix":                 {"", "example.com", vectorThumbprint, vectorURL, "prefix is empty"},
		"relative prefix":           {"relative/", "example.com", vectorThumbprint, vectorURL, "absolute URI"},
		"prefix with a semicolon":   {"https://ca.example/;policy=wildcard;", "example.com", vectorThumbprint, vectorURL, "';'"},
		"prefix with a line feed":   {"https://ca.example/\n", "example.com", vectorThumbprint, vectorURL, `'\n'`},
		"prefix too long":           {"https://ca.example/" + strings.Repeat("a", 512), "example.com", vectorThumbprint, vectorURL, "octets"},
		"white space":               {vectorPrefix, "   ", vectorThumbprint, vectorURL, "empty"},
		"dot":                       {vectorPrefix, ".", vectorThumbprint, vectorURL, "empty"},
		"empty label":               {vectorPrefix, "example..com", vectorThumbprint, vectorURL, "empty label"},
		"leading hyphen":            {vectorPrefix, "-example.com", vectorThumbprint, vectorURL, "hyphen"},
		"trailing hyphen":           {vectorPrefix, "example-.com", vectorThumbprint, vectorURL, "hyphen"},
		"label of 64":               {vectorPrefix, strings.Repeat("a", 64) + ".com", vectorThumbprint, vectorURL, "63 octets"},
		"name of 234":               {vectorPrefix, nameOf(234), vectorThumbprint, vectorURL, "233"},
		"IP address":                {vectorPrefix, "192.0.2.1", vectorThumbprint, vectorURL, "IP address"},
		"a parameter":               {vectorPrefix, "a;policy=wildcard", vectorThumbprint, vectorURL, "not a domain name"},
		"star inside":               {vectorPrefix, "a.*.com", vectorThumbprint, vectorURL, "wildcard"},
		"short thumbprint":          {vectorPrefix, "example.com", vectorThumbprint[:42], vectorURL, "thumbprint"},
		"padded thumbprint":         {vectorPrefix, "example.com", vectorThumbprint[:42] + "=", vectorURL, "thumbprint"},
		"no account URL":            {vectorPrefix, "example.com", vectorThumbprint, "", "account URL is empty"},
		"account URL with a space":  {vectorPrefix, "example.com", vectorThumbprint, "https://ca.example/ 1", "account URL"},
		"account URL not in ASCII":  {vectorPrefix, "example.com", vectorThumbprint, "https://cä.example/1", "account URL"},
		"thumbprint in plain octet": {vectorPrefix, "example.com", strings.Repeat("\x00", 43), vectorURL, "thumbprint"},
	} {
		got, err := HashedAccountURI(tt.prefix, tt.domain, tt.thumbprint, tt.url)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: HashedAccountURI = %q, %v; want an error with %q", name, got, err, tt.want)
		}
	}
}

// hashedWant is what a CA of draft -02 wants to see for the vector's name.
func hashedWant() Requirement {
	return Requirement{
		IssuerDomainNames: []string{"authority.example", "ca.example.net"}, Dialect: DialectHashed,
		AccountURI: vectorURL, Domain: "example.com", AccountURL: vectorURL, Thumbprint: vectorThumbprint, AccountHashPrefix: vectorPrefix,
		EarlierThumbprints: []string{strings.Repeat("B", 43), strings.Repeat("C", 43)},
	}
}

func TestEvaluateHashed(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	const head = "authority.example; accounturi="
	hash := func(domain, thumbprint string) string {
		return vectorPrefix + "sha-256/" + digest(domain, thumbprint, vectorURL)
	}
	want := hashedWant()
	wild := want
	wild.Wildcard = true
	deployed := want
	deployed.Dialect = DialectAccountURL
	noPrefix := deployed
	noPrefix.AccountHashPrefix = ""
	sha512 := vectorPrefix + "sha-512/" + strings.Repeat("zyRJK2GJgqV4ZxTd5lCWGbr5VcFlN-bGh4XbYHXqm1Y_", 2)[:86]
	for name, tt := range map[string]struct {
		value   string
		want    Requirement
		code    Code
		outlook Outlook
		types   string
		reason  string
	}{
		"good":                         {vectorURI, want, CodeGood, OutlookGood, "", ""},
		"good for any domain":          {vectorAny, want, CodeGood, OutlookGood, "", ""},
		"good under the other name":    {"x", want, CodeWrongIssuer, OutlookBad, "unauthorized", "another issuer"},
		"wildcard":                     {vectorURI + "; policy=wildcard", wild, CodeGood, OutlookGood, "", ""},
		"wildcard for any domain":      {vectorAny + ";policy=WILDCARD", wild, CodeGood, OutlookGood, "", ""},
		"policy missing":               {vectorURI, wild, CodePolicyMissing, OutlookBad, "unauthorized", "policy=wildcard is missing"},
		"expired":                      {vectorURI + "; persistUntil=1799999999", want, CodeExpired, OutlookBad, "unauthorized", "is past"},
		"until now":                    {vectorURI + "; persistUntil=1800000000", want, CodeGood, OutlookGood, "", ""},
		"another name's hash":          {hash("other.example", vectorThumbprint), want, CodeWrongAccount, OutlookBad, "unauthorized", "this account is " + vectorURI},
		"earlier key":                  {hash("example.com", strings.Repeat("B", 43)), want, CodeEarlierKey, OutlookDepends, "unauthorized", "earlier key"},
		"much earlier key, any domain": {hash(AnyDomain, strings.Repeat("C", 43)), want, CodeEarlierKey, OutlookDepends, "unauthorized", "earlier key"},
		"earlier key, policy missing":  {hash("example.com", strings.Repeat("B", 43)), wild, CodePolicyMissing, OutlookBad, "unauthorized", "policy"},
		"account URL":                  {vectorURL, want, CodeOtherDialect, OutlookDepends, "malformed", vectorURI},
		"account URL, policy missing":  {vectorURL, wild, CodePolicyMissing, OutlookBad, "malformed unauthorized", "policy"},
		"another account URL":          {"https://ca.example/acct/9", want, CodeMalformed, OutlookBad, "malformed", vectorURI},
		"wrong prefix":                 {"https://other.example/sha-256/" + digest("example.com", vectorThumbprint, vectorURL), want, CodeMalformed, OutlookBad, "malformed", "the hash is right"},
		"prefix missing":               {"sha-256/" + digest("example.com", vectorThumbprint, vectorURL), want, CodeMalformed, OutlookBad, "malformed", "prefix is missing"},
		"algorithm missing":            {vectorPrefix + digest("example.com", vectorThumbprint, vectorURL), want, CodeMalformed, OutlookBad, "malformed", "lacks sha-256/"},
		"nothing behind the prefix":    {vectorPrefix, want, CodeMalformed, OutlookBad, "malformed", "names no hash algorithm"},
		"unknown algorithm":            {vectorPrefix + "md5/abc", want, CodeMalformed, OutlookBad, "malformed unauthorized", `algorithm "md5"`},
		"algorithm in upper case":      {strings.Replace(vectorURI, "sha-256", "SHA-256", 1), want, CodeMalformed, OutlookBad, "malformed unauthorized", `algorithm "SHA-256"`},
		"truncated algorithm":          {vectorPrefix + "sha-256-128/AAAAAAAAAAAAAAAAAAAAAA", want, CodeMalformed, OutlookBad, "malformed unauthorized", "sha-256-128"},
		"another algorithm":            {sha512, want, CodeMalformed, OutlookBad, "malformed unauthorized", `algorithm "sha-512"`},
		"hash too short":               {vectorURI[:len(vectorURI)-1], want, CodeMalformed, OutlookBad, "malformed", "43 characters"},
		"hash too long":                {vectorURI + "A", want, CodeMalformed, OutlookBad, "malformed", "43 characters"},
		"hash with padding":            {vectorURI + "=", want, CodeMalformed, OutlookBad, "malformed", "padding"},
		"hash in base64":               {strings.Replace(vectorURI, "-PlLb", "+PlLb", 1), want, CodeMalformed, OutlookBad, "malformed", "base64 rather than base64url"},
		"hash in hexadecimal":          {vectorPrefix + "sha-256/" + strings.Repeat("0f", 32), want, CodeMalformed, OutlookBad, "malformed", "hexadecimal"},
		"wildcard left in the name":    {hash("*.example.com", vectorThumbprint), want, CodeWrongAccount, OutlookBad, "unauthorized", `with the "*."`},
		"validation name hashed":       {hash("_validation-persist.example.com", vectorThumbprint), want, CodeWrongAccount, OutlookBad, "unauthorized", "over the validation name"},
		"final dot hashed":             {hash("example.com.", vectorThumbprint), want, CodeWrongAccount, OutlookBad, "unauthorized", "final dot"},
		"raw thumbprint hashed":        {hash("example.com", rawThumbprint(t)), want, CodeWrongAccount, OutlookBad, "unauthorized", "32 raw octets"},
		"length left out":              {vectorPrefix + "sha-256/" + withoutLength("example.com", vectorThumbprint, vectorURL), want, CodeWrongAccount, OutlookBad, "unauthorized", "name's length"},
		"thumbprint itself":            {vectorPrefix + "sha-256/" + vectorThumbprint, want, CodeWrongAccount, OutlookBad, "unauthorized", "thumbprint of the key"},
		"staging prefix":               {strings.Replace(vectorURI, "ca.example", "staging.ca.example", 1), want, CodeMalformed, OutlookBad, "malformed", "staging"},

		"hash where the URL is wanted":   {vectorURI, deployed, CodeOtherDialect, OutlookDepends, "unauthorized", "draft -02"},
		"hash, earlier key, URL wanted":  {hash("example.com", strings.Repeat("B", 43)), deployed, CodeOtherDialect, OutlookDepends, "unauthorized", "draft -02"},
		"somebody's hash, URL wanted":    {hash("example.com", strings.Repeat("D", 43)), deployed, CodeWrongAccount, OutlookBad, "unauthorized", "hashed as in draft -02"},
		"hash at a CA without a prefix":  {vectorURI, noPrefix, CodeWrongAccount, OutlookBad, "unauthorized", "hashed as in draft -02"},
		"URL where the URL is wanted":    {vectorURL, deployed, CodeGood, OutlookGood, "", ""},
		"staging account, URL wanted":    {"https://staging.ca.example/acct/7", deployed, CodeWrongAccount, OutlookBad, "unauthorized", "staging"},
		"account in other case":          {"https://CA.example/acct/123", deployed, CodeWrongAccount, OutlookBad, "unauthorized", "upper and lower case"},
		"account with one slash more":    {vectorURL + "/", deployed, CodeWrongAccount, OutlookBad, "unauthorized", "slash"},
		"unknown tag twice":              {vectorURI + "; x=1; X=2", want, CodeGood, OutlookDepends, "malformed", `"x" appears twice`},
		"unknown tag twice, bad account": {vectorPrefix + "sha-256/" + vectorThumbprint + "; x=1; x=2", want, CodeWrongAccount, OutlookBad, "malformed unauthorized", "thumbprint of the key"},
		"until the year one":             {vectorURI + "; persistUntil=-62135596800", want, CodeExpired, OutlookDepends, "unauthorized", "is past"},
	} {
		t.Run(name, func(t *testing.T) {
			txt := head + tt.value
			if tt.value == "x" {
				txt = "other.example; accounturi=x:y"
			}
			r := Evaluate([]string{txt}, tt.want, now)
			v := r.Verdicts[0]
			if v.Code != tt.code || v.Outlook != tt.outlook {
				t.Errorf("Evaluate(%q) = %s, %s; want %s, %s", txt, v.Code, v.Outlook, tt.code, tt.outlook)
			}
			if got := strings.Join(v.refusal.types(), " "); got != tt.types {
				t.Errorf("error types %q, want %q", got, tt.types)
			}
			if (v.Reason() == "") != (tt.outlook == OutlookGood) || !strings.Contains(v.Reason(), tt.reason) {
				t.Errorf("reason %q, want %q", v.Reason(), tt.reason)
			}
			if r.Outlook() != tt.outlook || r.Good() != (tt.outlook == OutlookGood) || r.Explain() != v.Reason() {
				t.Errorf("Outlook() = %s, Good() = %v, Explain() = %q", r.Outlook(), r.Good(), r.Explain())
			}
		})
	}
}

func rawThumbprint(t *testing.T) string {
	t.Helper()
	raw, err := decodeBase64(vectorThumbprint)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}
