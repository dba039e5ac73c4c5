package lab_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/dnspersist/caddy-dnspersist/internal/lab"
)

// TestValidation has the verdict about all sorts of records in all dialects.
func TestValidation(t *testing.T) {
	const malformed, unauthorized = "malformed", "unauthorized"
	// A verdict of each kind of CA: one of -00 or -01, one of these that accepts
	// hashed records, one of -02, one of -02 that accepts the account URL.
	type verdicts struct{ old, oldHashed, strict, lenient string }
	good := verdicts{old: unauthorized}
	wrong := verdicts{unauthorized, unauthorized, unauthorized, unauthorized}
	odd := verdicts{unauthorized, malformed, malformed, malformed}
	broken := verdicts{malformed, malformed, malformed, malformed}
	foreign := verdicts{unauthorized, unauthorized, malformed, malformed}

	for _, kind := range []struct {
		name    string
		dialect lab.Dialect
		of      func(verdicts) string
	}{
		{"00", lab.Dialect{Draft: "00"}, func(v verdicts) string { return v.old }},
		{"01", lab.Dialect{}, func(v verdicts) string { return v.old }},
		{"01 hashed", lab.Dialect{AcceptHashed: true}, func(v verdicts) string { return v.oldHashed }},
		{"02", lab.Dialect{Draft: "02"}, func(v verdicts) string { return v.strict }},
		{"02+01", lab.Dialect{Draft: "02", AcceptAccountURL: true}, func(v verdicts) string { return v.lenient }},
		{"mixed", lab.Dialect{Draft: "02", Mixed: true}, func(v verdicts) string { return v.lenient }},
	} {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, lab.CAConfig{Dialect: kind.dialect})
			other := w.account
			w.register()
			account := w.account.Location
			prefix := w.ca.HashPrefix()
			record := func(uri string) string { return issuer + "; accounturi=" + uri }
			uri := func(domain string) string { return w.ca.HashedURI(account, domain) }
			hash := func(domain string) string { return strings.TrimPrefix(uri(domain), prefix+"sha-256/") }
			for i, c := range []struct {
				name string
				// values makes the records of a domain.
				values func(domain string) []string
				want   verdicts
			}{
				{"domain scope", func(d string) []string { return []string{record(uri(d))} }, good},
				{"scope of many names", func(string) []string { return []string{record(uri("*"))} }, good},
				// No tabs: miekg/dns gives Pebble \009, which it takes for part of a word.
				{"white space and case", func(d string) []string {
					return []string{" " + issuer + "  ; AccountURI  = " + uri(d) + " ;Policy=WildCard"}
				}, good},
				{"long, with unknown parameters", func(d string) []string {
					return []string{issuer + "; x=" + strings.Repeat("y", 600) + "; accounturi=" + uri(d) + "; z=" + strings.Repeat("0", 300)}
				}, good},
				{"beside a bad one and another issuer's", func(d string) []string {
					return []string{record(prefix), record(uri(d)), "other.test; accounturi=\xc3\xa4\\\"", "v=spf1 -all"}
				}, verdicts{old: unauthorized}},
				{"not yet over", func(d string) []string { return []string{record(uri(d)) + "; persistUntil=99999999999"} }, good},
				{"over", func(d string) []string { return []string{record(uri(d)) + "; persistUntil=1"} }, wrong},
				{"a big answer", func(d string) []string {
					var values []string
					for n := range 100 {
						values = append(values, fmt.Sprintf("other%d.test; accounturi=%s", n, strings.Repeat("u", 400)))
					}
					return append(values, record(uri(d)))
				}, good},
				{"another domain's", func(d string) []string { return []string{record(uri("x." + d))} }, wrong},
				{"another account's", func(d string) []string { return []string{record(w.ca.HashedURI(other.Location, d))} }, wrong},
				{"nobody's", func(string) []string { return []string{record(prefix + "sha-256/" + strings.Repeat("A", 43))} }, wrong},
				{"another issuer's", func(d string) []string { return []string{"other.test; accounturi=" + uri(d)} }, wrong},
				{"an upper-case issuer", func(d string) []string { return []string{strings.ToUpper(issuer) + "; accounturi=" + uri(d)} }, wrong},
				{"another algorithm", func(d string) []string { return []string{record(prefix + "sha-512/" + hash(d))} }, odd},
				{"upper-case algorithm", func(d string) []string { return []string{record(prefix + "SHA-256/" + hash(d))} }, odd},
				{"no algorithm", func(d string) []string { return []string{record(prefix + hash(d))} }, odd},
				{"too short", func(d string) []string { return []string{record(uri(d)[:len(uri(d))-1])} }, odd},
				{"too long", func(d string) []string { return []string{record(uri(d) + "A")} }, odd},
				{"padded", func(d string) []string { return []string{record(uri(d) + "=")} }, odd},
				{"standard base64", func(string) []string { return []string{record(prefix + "sha-256/" + strings.Repeat("+", 42) + "A")} }, odd},
				{"no hash", func(string) []string { return []string{record(prefix + "sha-256/")} }, odd},
				{"another prefix", func(d string) []string { return []string{record("https://other.test/account-hash/sha-256/" + hash(d))} }, foreign},
				{"the account URL", func(string) []string { return []string{record(account)} }, verdicts{strict: malformed}},
				{"another account URL", func(string) []string { return []string{record(other.Location)} }, verdicts{unauthorized, unauthorized, malformed, unauthorized}},
				{"a foreign URL", func(string) []string { return []string{record("https://other.test/acct/1")} }, foreign},
				{"two account URIs", func(d string) []string { return []string{record(uri(d)) + "; accounturi=" + uri(d)} }, broken},
				{"no account URI", func(string) []string { return []string{issuer + "; policy=wildcard"} }, broken},
				{"an empty account URI", func(string) []string { return []string{record("")} }, broken},
				{"a final semicolon", func(d string) []string { return []string{record(uri(d)) + ";"} }, broken},
				{"a space within", func(d string) []string { return []string{record(uri(d)) + "; x=a b"} }, broken},
			} {
				domain := fmt.Sprintf("c%d.%s", i, zone)
				w.publish(domain, c.values(domain)...)
				if got := w.verdict(domain); got != kind.of(c.want) {
					t.Errorf("%s: %q, want %q", c.name, got, kind.of(c.want))
				}
			}
		})
	}
}

func TestHashedWildcardAndIssuance(t *testing.T) {
	w := newWorld(t, lab.CAConfig{Dialect: lab.Dialect{Draft: "02"}})
	w.publish(zone, w.hashed(zone))
	w.want("*."+zone, "unauthorized")
	w.want("www."+zone, "unauthorized")
	for _, scope := range []string{zone, "*"} {
		w.publish(zone, w.hashed(scope)+"; policy=wildcard")
		w.mustObtain("*."+zone, zone)
	}
	if w.ca.HashedURI(w.account.Location, "EXAMPLE.test") != w.ca.HashedURI(w.account.Location, zone) {
		t.Error("the domain is not lower-cased")
	}
	if u := w.ca.HashedURI(w.account.Location+"0", zone); u != "" {
		t.Errorf("a URI for an unknown account: %s", u)
	}
}

// TestHashedBehindCNAME has the hash be over the name that is validated.
func TestHashedBehindCNAME(t *testing.T) {
	w := newWorld(t, lab.CAConfig{Dialect: lab.Dialect{Draft: "02"}})
	for _, name := range []string{"a", "b", "c", "d"} {
		w.dns.SetRR(0, fmt.Sprintf("_validation-persist.%s.%s. CNAME records.%s.", name, zone, zone))
	}
	target := "records." + zone
	w.dns.SetTXT(0, target, w.hashed("a."+zone), w.hashed("b."+zone))
	w.want("a."+zone, "")
	w.want("b."+zone, "")
	w.want("c."+zone, "unauthorized")
	w.dns.SetTXT(0, target, w.hashed(target))
	w.want("a."+zone, "unauthorized")
	w.dns.SetTXT(0, target, w.hashed("*"))
	w.want("d."+zone, "")
}

// TestResolverErrors has failures of DNS reach Pebble as they are.
func TestResolverErrors(t *testing.T) {
	w := newWorld(t, lab.CAConfig{Dialect: lab.Dialect{Draft: "02"}})
	w.want("nothing."+zone, "unauthorized")
	w.dns.SetTXT(0, "empty."+zone, "x")
	w.dns.SetTXT(0, "below._validation-persist.empty."+zone, "x")
	w.want("empty."+zone, "unauthorized")
	w.dns.SetMode(0, "refused")
	w.want(zone, "unauthorized")
	w.dns.SetMode(0, "silent")
	w.want(zone, "unauthorized")
	for i, want := range []string{"unsuccessful response: 3", "No TXT records found", "unsuccessful response: 5", "Error retrieving"} {
		if f := w.ca.FailedValidations()[i]; !strings.Contains(f.Detail, want) {
			t.Errorf("%s, want %s", f.Detail, want)
		}
	}
}
