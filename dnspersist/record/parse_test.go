package record

import (
	"errors"
	"strings"
	"testing"
	"time"
)

const testAccount = "https://ca.example/acct/1"

// TestParseGood holds the values that CAs take (RFC 8659 section 4.2, read as Pebble and
// Boulder read it).
func TestParseGood(t *testing.T) {
	at := func(sec int64) time.Time { return time.Unix(sec, 0).UTC() }
	plain := Value{IssuerDomainName: "ca.example", AccountURI: testAccount}
	with := func(change func(*Value)) Value {
		v := plain
		change(&v)
		return v
	}
	wildcard := with(func(v *Value) { v.Wildcard = true })
	until := func(sec int64) Value { return with(func(v *Value) { v.PersistUntil = at(sec) }) }
	const head = "ca.example; accounturi=" + testAccount
	tests := map[string]struct {
		txt    string
		want   Value
		policy string
	}{
		"plain":                        {head, plain, ""},
		"no white space":               {"ca.example;accounturi=" + testAccount, plain, ""},
		"white space everywhere":       {" \tca.example \t;\t accounturi \t=\t " + testAccount + " \t", plain, ""},
		"issuer in upper case":         {"CA.Example; accounturi=" + testAccount, plain, ""},
		"issuer with final dot":        {"ca.example.; accounturi=" + testAccount, plain, ""},
		"tags in upper case":           {"ca.example; ACCOUNTURI=" + testAccount + "; POLICY=wildcard; PERSISTUNTIL=7", with(func(v *Value) { v.Wildcard, v.PersistUntil = true, at(7) }), "wildcard"},
		"any order":                    {"ca.example; persistUntil=7; policy=wildcard; accounturi=" + testAccount, with(func(v *Value) { v.Wildcard, v.PersistUntil = true, at(7) }), "wildcard"},
		"policy":                       {head + "; policy=wildcard", wildcard, "wildcard"},
		"policy in any case":           {head + "; policy=WildCard", wildcard, "WildCard"},
		"other policy counts as none":  {head + "; policy=specific-subdomains-only", plain, "specific-subdomains-only"},
		"empty policy counts as none":  {head + "; policy=", plain, ""},
		"persistUntil":                 {head + "; persistUntil=1767225600", until(1767225600), ""},
		"persistUntil with plus":       {head + "; persistUntil=+5", until(5), ""},
		"persistUntil negative":        {head + "; persistUntil=-5", until(-5), ""},
		"persistUntil leading zeros":   {head + "; persistUntil=0005", until(5), ""},
		"persistUntil zero":            {head + "; persistUntil=0", until(0), ""},
		"persistUntil greatest":        {head + "; persistUntil=9223372036854775807", until(1<<63 - 1), ""},
		"unknown tag":                  {head + "; future=x", plain, ""},
		"unknown tag, empty value":     {head + "; future=", plain, ""},
		"unknown tag, = in the value":  {head + "; future=a=b", plain, ""},
		"long s is another tag":        {head + "; per\u017fistUntil=never", plain, ""},
		"long s is no duplicate":       {head + "; persistUntil=5; per\u017fistUntil=x", until(5), ""},
		"= in the account URI":         {"ca.example; accounturi=https://ca.example/?id=1", with(func(v *Value) { v.AccountURI = "https://ca.example/?id=1" }), ""},
		"account URI keeps its case":   {"ca.example; accounturi=https://CA.example/Acct", with(func(v *Value) { v.AccountURI = "https://CA.example/Acct" }), ""},
		"more tags than usual":         {head + "; a=1; b=2; c=3; d=4; e=5; f=6; g=7; h=8; i=9", plain, ""},
		"quotes in an unknown value":   {head + `; note="x"`, plain, ""},
		"every visible character":      {head + "; x=" + visible(), plain, ""},
		"issuer not a name is read on": {"v=spf1 -all; accounturi=" + testAccount, with(func(v *Value) { v.IssuerDomainName = "v=spf1 -all" }), ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p, err := Parse(tt.txt)
			if err != nil {
				t.Fatalf("Parse(%q): %v", tt.txt, err)
			}
			if p.Value != tt.want {
				t.Errorf("Parse(%q) = %+v, want %+v", tt.txt, p.Value, tt.want)
			}
			if p.PolicyRaw != tt.policy {
				t.Errorf("PolicyRaw = %q, want %q", p.PolicyRaw, tt.policy)
			}
			if p.HasPersistUntil != !tt.want.PersistUntil.IsZero() {
				t.Errorf("HasPersistUntil = %v with %v", p.HasPersistUntil, tt.want.PersistUntil)
			}
		})
	}
}

// visible returns the visible ASCII characters that a value can hold.
func visible() string {
	var b strings.Builder
	for c := byte(0x21); c <= 0x7e; c++ {
		if c != ';' {
			b.WriteByte(c)
		}
	}
	return b.String()
}

func TestParseMalformed(t *testing.T) {
	const head = "ca.example; accounturi=" + testAccount
	tests := map[string]struct {
		txt, issuer string
		// reason is a part of the error.
		reason string
	}{
		"empty":                        {"", "", "no issuer"},
		"white space only":             {" \t ", "", "no issuer"},
		"no issuer":                    {"; accounturi=" + testAccount, "", "no issuer"},
		"a dot for an issuer":          {".; accounturi=" + testAccount, "", "no issuer"},
		"no parameters":                {"ca.example", "ca.example", "accounturi is missing"},
		"no accounturi":                {"ca.example; policy=wildcard", "ca.example", "accounturi is missing"},
		"accounturi empty":             {"ca.example; accounturi=", "ca.example", "accounturi is empty"},
		"accounturi blank":             {"ca.example; accounturi= \t", "ca.example", "accounturi is empty"},
		"trailing semicolon":           {head + ";", "ca.example", "ends with a semicolon"},
		"trailing semicolon and space": {head + "; ", "ca.example", "ends with a semicolon"},
		"semicolon only":               {"ca.example;", "ca.example", "ends with a semicolon"},
		"empty parameter":              {"ca.example;; accounturi=" + testAccount, "ca.example", "empty parameter"},
		"parameter without =":          {head + "; wildcard", "ca.example", "has no ="},
		"parameter without tag":        {head + "; =x", "ca.example", "has no tag"},
		"duplicate accounturi":         {head + "; accounturi=" + testAccount, "ca.example", "twice"},
		"duplicate in another case":    {head + "; Policy=wildcard; policy=wildcard", "ca.example", "twice"},
		"space in a value":             {head + "; x=a b", "ca.example", `holds ' '`},
		"tab in a value":               {head + "; x=a\tb", "ca.example", `holds '\t'`},
		"control in a value":           {head + "; x=a\x00", "ca.example", "holds"},
		"delete in a value":            {head + "; x=a\x7f", "ca.example", "holds"},
		"newline at the end":           {head + "\n", "ca.example", "holds"},
		"non-ASCII in a value":         {head + "; x=\u00e9", "ca.example", "holds"},
		"invalid UTF-8 in a value":     {head + "; x=\xff", "ca.example", "holds"},
		"no-break space is no space":   {head + ";\u00a0x=1\u00a0", "ca.example", "holds"},
		"space in the account URI":     {"ca.example; accounturi=https://ca.example/ 1", "ca.example", "holds"},
		"space in the policy":          {head + "; policy=wild card", "ca.example", "holds"},
		"persistUntil empty":           {head + "; persistUntil=", "ca.example", "not a number"},
		"persistUntil a date":          {head + "; persistUntil=2027-01-01", "ca.example", "not a number"},
		"persistUntil hexadecimal":     {head + "; persistUntil=0x10", "ca.example", "not a number"},
		"persistUntil with underscore": {head + "; persistUntil=1_000", "ca.example", "not a number"},
		"persistUntil a fraction":      {head + "; persistUntil=1.5", "ca.example", "not a number"},
		"persistUntil too great":       {head + "; persistUntil=9223372036854775808", "ca.example", "not a number"},
		"persistUntil too small":       {head + "; persistUntil=-9223372036854775809", "ca.example", "not a number"},
		"another CA's, malformed":      {"OTHER.example.; x", "other.example", "has no ="},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p, err := Parse(tt.txt)
			if !errors.Is(err, errMalformed) {
				t.Fatalf("Parse(%q) = %+v, %v; want ErrMalformed", tt.txt, p, err)
			}
			if !strings.Contains(err.Error(), tt.reason) {
				t.Errorf("error %q does not say %q", err, tt.reason)
			}
			if p.IssuerDomainName != tt.issuer {
				t.Errorf("IssuerDomainName = %q, want %q", p.IssuerDomainName, tt.issuer)
			}
		})
	}
}

// TestParseIssuer checks that only ASCII changes case and only one final dot goes: what is
// no name must not turn into the name of a CA.
func TestParseIssuer(t *testing.T) {
	for issuer, want := range map[string]string{
		"Ca.Example":         "ca.example",
		"ca.example.":        "ca.example",
		"ca.example..":       "ca.example..",
		"ca.example .":       "ca.example .",
		"\u212aa.example":    "\u212aa.example",
		"\xffCA.example":     "\xffCA.example",
		`"ca.example`:        `"ca.example`,
		"xn--strae-oqa.test": "xn--strae-oqa.test",
	} {
		p, err := Parse(" " + issuer + "\t; accounturi=x:y")
		if err != nil || p.IssuerDomainName != want || p.Issuer != issuer {
			t.Errorf("Parse with issuer %q: %q as %q, %v; want %q", issuer, p.Issuer, p.IssuerDomainName, err, want)
		}
	}
}
