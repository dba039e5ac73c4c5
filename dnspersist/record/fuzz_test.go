package record

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// FuzzParse checks that no value panics, and that the canonical spelling of an accepted
// value means the same.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"", ";", ".", "ca.example", "ca.example; accounturi=" + testAccount,
		"CA.example.;accounturi=x:y;policy=WILDCARD;persistUntil=+0005;future=1",
		"ca.example..; accounturi=x", "ca.example .; accounturi=x", "\u212a; accounturi=x", "\xff; accounturi=x",
		"ca.example; accounturi=x; persistUntil=-62135596800", "ca.example; accounturi=x; persistUntil=9223372036854775807",
		"ca.example; accounturi=x; persistUntil=-9223372036854775808", "ca.example; accounturi=x;", "a;=;b=\t",
		`"ca.example\; accounturi=x"`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, txt string) {
		p, err := Parse(txt)
		Evaluate([]string{txt}, Requirement{IssuerDomainNames: []string{p.IssuerDomainName, "ca.example"}, AccountURI: p.AccountURI}, time.Unix(0, 0)).Explain()
		if err != nil {
			if !errors.Is(err, errMalformed) {
				t.Fatalf("Parse(%q): %v does not wrap ErrMalformed", txt, err)
			}
			return
		}
		again, err := Parse(p.String())
		if err != nil {
			t.Fatalf("Parse(%q) is good, its String() %q is not: %v", txt, p.String(), err)
		}
		if again.Value != p.Value {
			t.Fatalf("Parse(%q) = %+v, its String() %q = %+v", txt, p.Value, p.String(), again.Value)
		}
	})
}

// FuzzRoundTrip checks that a record of valid parts says what it was built of, also after
// it was cut into character-strings.
func FuzzRoundTrip(f *testing.F) {
	f.Add("ca.example", testAccount, true, int64(1767225600))
	f.Add("CA.example", "urn:x", false, int64(0))
	f.Add("xn--strae-oqa.example", "https://ca.example/"+strings.Repeat("a", 400), true, int64(-1))
	f.Add("a.b", "a:=", false, int64(1<<63-1))
	f.Fuzz(func(t *testing.T, issuer, account string, wildcard bool, until int64) {
		if ValidIssuerDomainName(issuer) != nil || ValidAccountURI(account) != nil {
			return
		}
		v := Value{IssuerDomainName: strings.ToLower(issuer), AccountURI: account, Wildcard: wildcard, PersistUntil: time.Unix(until, 0).UTC()}
		if until == 0 {
			v.PersistUntil = time.Time{}
		}
		p, err := Parse(strings.Join(Split(v.String()), ""))
		if err != nil {
			t.Fatalf("%q: %v", v, err)
		}
		if p.Value != v {
			t.Fatalf("%q: built of %+v, read as %+v", v, v, p.Value)
		}
		r := Evaluate([]string{v.String()}, Requirement{IssuerDomainNames: []string{strings.ToLower(issuer)}, AccountURI: account, Wildcard: wildcard}, time.Unix(until, 0))
		if !r.Good() {
			t.Fatalf("%q is not good at its end: %s", v, r.Explain())
		}
	})
}

// FuzzNormalize checks that a normalized name stays as it is, and leads to a validation
// name that DNS can hold.
func FuzzNormalize(f *testing.F) {
	for _, seed := range []string{
		"example.com", "*.Example.COM.", "stra\u00dfe.example", "\u0130.example", "\u212a.example", "a\u3002b", "xn--abc-",
		"xn--xn--foo--", "xn--", "xn--a", "*.*.x", "192.0.2.1", "[::1]", "\xff", " . ", nameOf(233), nameOf(234),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		once, err := Normalize(name)
		if err != nil {
			return
		}
		twice, err := Normalize(once)
		if err != nil || twice != once {
			t.Fatalf("%q: %q, then %q, %v", name, once, twice, err)
		}
		at, err := ValidationName(name)
		if err != nil || len(at) > 253 || at != Label+"."+Base(once) {
			t.Fatalf("%q: validation name %q, %v", name, at, err)
		}
	})
}

// FuzzEvaluate checks that no set of values panics in either dialect, that there is a reason
// wherever something is wrong, and that a CA which asks for the hash is at least as
// strict about our values as one that asks for the account URL is about its own.
func FuzzEvaluate(f *testing.F) {
	f.Add("authority.example; accounturi="+vectorURI, "authority.example; accounturi="+vectorURL, vectorPrefix, false)
	f.Add("authority.example; accounturi="+vectorPrefix+"sha-512/x", "; policy=wildcard", vectorPrefix, true)
	f.Add(`"authority.example\; accounturi=`, "", "", true)
	f.Add("Authority.Example.; accounturi="+vectorAny+"; x=1; x=2", "authority.example", "https://ca.example/h", false)
	f.Fuzz(func(t *testing.T, first, second, prefix string, wildcard bool) {
		want := hashedWant()
		want.AccountHashPrefix, want.Wildcard = prefix, wildcard
		for _, dialect := range []Dialect{DialectHashed, DialectAccountURL} {
			want.Dialect = dialect
			r := Evaluate([]string{first, second}, want, time.Unix(1_800_000_000, 0))
			for _, v := range r.Verdicts {
				if (v.Reason() == "") != (v.Outlook == OutlookGood) {
					t.Fatalf("%q is %s (%s) with the reason %q", v.Text, v.Outlook, v.Code, v.Reason())
				}
				if (len(v.refusal.types()) == 0) != (v.Outlook == OutlookGood) {
					t.Fatalf("%q is %s with the error types %v", v.Text, v.Outlook, v.refusal.types())
				}
			}
			if (r.Explain() == "") != r.Good() || (len(r.ErrorTypes()) == 0) != r.Good() {
				t.Fatalf("%q, %q: %s, %q, %v", first, second, r.Outlook(), r.Explain(), r.ErrorTypes())
			}
		}
	})
}

// FuzzHashedAccountURI checks that whatever comes out fits into a record and is
// recognized there.
func FuzzHashedAccountURI(f *testing.F) {
	f.Add(vectorPrefix, "example.com", vectorThumbprint, vectorURL)
	f.Add("urn:x:", "*.B\u00fccher.example.", vectorThumbprint, "https://ca.example/1;2")
	f.Add("https://ca.example/"+strings.Repeat("a", 430), AnyDomain, vectorThumbprint, vectorURL)
	f.Add("x:", "-", "", "")
	f.Fuzz(func(t *testing.T, prefix, domain, thumbprint, url string) {
		uri, err := HashedAccountURI(prefix, domain, thumbprint, url)
		if err != nil {
			return
		}
		if err := ValidAccountURI(uri); err != nil {
			t.Fatalf("HashedAccountURI(%q, %q, %q, %q) = %q: %v", prefix, domain, thumbprint, url, uri, err)
		}
		base := "example.com"
		if domain != AnyDomain {
			normal, err := Normalize(domain)
			if err != nil {
				t.Fatal(err)
			}
			base = Base(normal)
		}
		value := Value{IssuerDomainName: "ca.example", AccountURI: uri}.String()
		want := Requirement{
			IssuerDomainNames: []string{"ca.example"}, Dialect: DialectHashed, Domain: base,
			AccountURL: url, AccountURI: url, Thumbprint: thumbprint, AccountHashPrefix: prefix,
		}
		if r := Evaluate([]string{value}, want, time.Unix(0, 0)); !r.Good() {
			t.Fatalf("%q is not good for what it was made of: %s", value, r.Explain())
		}
	})
}
