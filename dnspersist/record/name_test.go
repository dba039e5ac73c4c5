package record

import (
	"strings"
	"testing"

	"golang.org/x/net/idna"
)

// nameOf returns a domain name of n octets.
func nameOf(n int) string {
	var b strings.Builder
	for n-b.Len() > 64 {
		b.WriteString(strings.Repeat("a", 62) + ".")
	}
	b.WriteString(strings.Repeat("b", n-b.Len()))
	name := b.String()
	if last := name[strings.LastIndexByte(name, '.')+1:]; len(last) > 63 {
		name = name[:len(name)-2] + ".b"
	}
	return name
}

func TestNormalize(t *testing.T) {
	for name, want := range map[string]string{
		"example.com":               "example.com",
		"Example.COM":               "example.com",
		"example.com.":              "example.com",
		" example.com ":             "example.com",
		"*.Example.com.":            "*.example.com",
		"localhost":                 "localhost",
		"_sip.example.com":          "_sip.example.com",
		"a-b.example.com":           "a-b.example.com",
		"1.example.com":             "1.example.com",
		"stra\u00dfe.example":       "xn--strae-oqa.example",
		"STRA\u00dfE.example":       "xn--strae-oqa.example",
		"*.stra\u00dfe.example":     "*.xn--strae-oqa.example",
		"strasse.example":           "strasse.example",
		"xn--strae-oqa.example":     "xn--strae-oqa.example",
		"XN--Strae-OQA.example":     "xn--strae-oqa.example",
		"b\u00fccher.example":       "xn--bcher-kva.example",
		"B\u00dcCHER.example":       "xn--bcher-kva.example",
		"\u4f8b\u3048.\u30c6\u30b9": mustASCII("\u4f8b\u3048.\u30c6\u30b9"),
		nameOf(233):                 nameOf(233),
		nameOf(233) + ".":           nameOf(233),
		"*." + nameOf(233):          "*." + nameOf(233),
		strings.Repeat("a", 63):     strings.Repeat("a", 63),
	} {
		got, err := Normalize(name)
		if err != nil || got != want {
			t.Errorf("Normalize(%q) = %q, %v; want %q", name, got, err, want)
		}
	}
}

func mustASCII(name string) string {
	ascii, err := idna.ToASCII(name)
	if err != nil {
		panic(err)
	}
	return ascii
}

// TestNormalizeAgreesWithCertMagic holds Normalize to the function that certmagic calls
// for the names of a CSR: the identifier and the certificate's name must not differ.
func TestNormalizeAgreesWithCertMagic(t *testing.T) {
	for _, name := range []string{
		"example.com", "*.example.com", "stra\u00dfe.example", "*.stra\u00dfe.example", "fa\u00df.de",
		"b\u00fccher.example", "\u03c3\u03c2.example", "na\u200dme.example", "xn--strae-oqa.example", "\u4f8b\u3048.jp",
	} {
		want, err := idna.ToASCII(name)
		if err != nil {
			t.Fatalf("idna.ToASCII(%q): %v", name, err)
		}
		if got, err := Normalize(name); err != nil || got != want {
			t.Errorf("Normalize(%q) = %q, %v; certmagic has %q", name, got, err, want)
		}
	}
}

func TestNormalizeErrors(t *testing.T) {
	for name, reason := range map[string]string{
		"":                            "empty",
		" ":                           "empty",
		".":                           "empty",
		"*":                           "wildcard",
		"*.":                          "wildcard",
		"*..":                         "empty label",
		"..":                          "empty label",
		".example.com":                "empty label",
		"a..example.com":              "empty label",
		"example.com..":               "empty label",
		"*.*.example.com":             "only the first label",
		"a.*.example.com":             "only the first label",
		"a*.example.com":              "holds '*'",
		"*a.example.com":              "holds '*'",
		"192.0.2.1":                   "IP address",
		"192.0.2.1.":                  "IP address",
		"*.192.0.2.1":                 "IP address",
		"2001:db8::1":                 "IP address",
		"[2001:db8::1]":               "IP address",
		"fe80::1%eth0":                "IP address",
		"example.com:443":             "holds ':'",
		"https://example.com":         "holds ':'",
		"a b.example.com":             "holds ' '",
		"a;b.example.com":             "holds ';'",
		"a\nb.example.com":            `holds '\n'`,
		"{env.DOMAIN}":                "holds '{'",
		"-a.example.com":              "hyphen",
		"a-.example.com":              "hyphen",
		strings.Repeat("a", 64):       "63",
		nameOf(234):                   "234 octets",
		"*." + nameOf(234):            "234 octets",
		strings.Repeat("\u00e9", 240): "",
		strings.Repeat("\u00e9", 1e6): "2000000 octets",
		"xn--abc-.example":            "not a domain name",
		"xn--.example":                "not a domain name",
	} {
		got, err := Normalize(name)
		if err == nil {
			t.Errorf("Normalize(%q) = %q, want an error", name, got)
			continue
		}
		if !strings.Contains(err.Error(), reason) {
			t.Errorf("Normalize(%q): error %q does not say %q", name, err, reason)
		}
	}
}

func TestValidationName(t *testing.T) {
	for identifier, want := range map[string]string{
		"example.com":         "_validation-persist.example.com",
		"*.example.com":       "_validation-persist.example.com",
		"Stra\u00dfe.example": "_validation-persist.xn--strae-oqa.example",
	} {
		if got, err := ValidationName(identifier); err != nil || got != want {
			t.Errorf("ValidationName(%q) = %q, %v; want %q", identifier, got, err, want)
		}
	}
	if got, err := ValidationName(nameOf(233)); err != nil || len(got) != 253 {
		t.Errorf("the longest validation name has %d octets, %v; want 253", len(got), err)
	}
	if got, err := ValidationName("192.0.2.1"); err == nil {
		t.Errorf("ValidationName of an IP address = %q, want an error", got)
	}
}

func TestBaseAndIsWildcard(t *testing.T) {
	for identifier, want := range map[string]struct {
		base     string
		wildcard bool
	}{
		"example.com":   {"example.com", false},
		"*.example.com": {"example.com", true},
		"*example.com":  {"*example.com", false},
	} {
		if base, wildcard := Base(identifier), IsWildcard(identifier); base != want.base || wildcard != want.wildcard {
			t.Errorf("%q: base %q, wildcard %v; want %+v", identifier, base, wildcard, want)
		}
	}
}

func TestValidIssuerDomainName(t *testing.T) {
	for _, name := range []string{"ca.example", "letsencrypt.org", "xn--strae-oqa.example", "a-1.b.example", "ca"} {
		if err := ValidIssuerDomainName(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{
		"", ".", "ca.example.", "ca..example", "*.ca.example", "_ca.example", "ca.example;x", "ca .example",
		"ca.example\n", "$(id).example", "stra\u00dfe.example", "-ca.example", "ca-.example",
		strings.Repeat("a", 64) + ".example", strings.Repeat("a.", 127) + "aa",
	} {
		if err := ValidIssuerDomainName(name); err == nil {
			t.Errorf("%q is accepted", name)
		}
	}
}

func TestValidAccountURI(t *testing.T) {
	for _, uri := range []string{
		testAccount, "https://ca.example:14000/acct/1?x=1#y", "urn:acct:1", "a+b-c.1:x", "https://[2001:db8::1]/~a!b&(c)*+,=%20",
		"https://ca.example/" + strings.Repeat("a", 512-len("https://ca.example/")),
	} {
		if err := ValidAccountURI(uri); err != nil {
			t.Errorf("%q: %v", uri, err)
		}
	}
	for _, uri := range []string{
		"", "https", "https:", ":x", "/acct/1", "1a:x", "a/b:c", "a_b:c", "https://ca.example/;x", "https://ca.example/ x",
		"https://ca.example/\tx", "https://ca.example/\x00", "https://ca.example/\x7f", "https://ca.example/\u00e9",
		`https://ca.example/"x`, "https://ca.example/`id`", `https://ca.example/\x`, "https://ca.example/<x>",
		"https://ca.example/$(id)", "https://ca.example/'x",
		"https://ca.example/" + strings.Repeat("a", 513-len("https://ca.example/")),
	} {
		if err := ValidAccountURI(uri); err == nil {
			t.Errorf("%q is accepted", uri)
		}
	}
}

// The label is in other people's zones for ever. Worked out with another program:
// base32(sha256(domain)[:16]).
func TestDelegationLabel(t *testing.T) {
	for domain, want := range map[string]string{
		"example.com":     "un42n5xov642kxrxrqiyanhcou",
		"www.example.com": "qd6a7ojgnw33qp4fquh2bzsurm",
	} {
		if got := DelegationLabel(domain); got != want {
			t.Errorf("%s: %s, want %s", domain, got, want)
		}
	}
}
