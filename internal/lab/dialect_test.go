package lab_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"github.com/dnspersist/caddy-dnspersist/internal/lab"
)

const issuer = lab.DefaultIssuerName

// wire keeps what the CA really answered, by the first element of the path.
type wire struct {
	base http.RoundTripper

	mu      sync.Mutex
	answers map[string][]map[string]any
}

func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := w.base.RoundTrip(r)
	if err != nil {
		return response, err
	}
	body, err := io.ReadAll(response.Body)
	response.Body.Close()
	if err != nil {
		return nil, err
	}
	response.Body = io.NopCloser(bytes.NewReader(body))
	var object map[string]any
	if response.StatusCode < 300 && json.Unmarshal(body, &object) == nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		step := strings.SplitN(r.URL.Path, "/", 3)[1]
		w.answers[step] = append(w.answers[step], object)
	}
	return response, nil
}

func (w *wire) of(step string) []map[string]any {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.answers[step])
}

// tap records what comes over the wire.
func (w *world) tap() *wire {
	tapped := &wire{base: w.ca.HTTPClient().Transport, answers: make(map[string][]map[string]any)}
	w.client.HTTPClient = &http.Client{Transport: tapped}
	return tapped
}

// meta gets that of the directory.
func (w *world) meta() map[string]any {
	w.t.Helper()
	response, err := w.ca.HTTPClient().Get(w.ca.Directory())
	if err != nil {
		w.t.Fatal(err)
	}
	defer response.Body.Close()
	var directory struct{ Meta map[string]any }
	if err := json.NewDecoder(response.Body).Decode(&directory); err != nil {
		w.t.Fatal(err)
	}
	return directory.Meta
}

func (w *world) publish(host string, values ...string) {
	w.dns.SetTXT(0, "_validation-persist."+host, values...)
}

// verdict orders a name and returns the problem type of its validation, "" if it
// is good.
func (w *world) verdict(name string) string {
	w.t.Helper()
	order, err := w.order(name)
	if err != nil {
		w.t.Fatal(err)
	}
	_, err = w.client.PollAuthorization(w.t.Context(), w.account, w.start(order)[0])
	if err != nil && problemType(err) == "" {
		w.t.Fatal(err)
	}
	return problemType(err)
}

func (w *world) want(name, verdict string) {
	w.t.Helper()
	if got := w.verdict(name); got != verdict {
		w.t.Errorf("%s: %q, want %q", name, got, verdict)
	}
}

// hashed is a record for the account of w.
func (w *world) hashed(domain string) string {
	w.t.Helper()
	uri := w.ca.HashedURI(w.account.Location, domain)
	if uri == "" {
		w.t.Fatal("no hashed URI")
	}
	return issuer + "; accounturi=" + uri
}

// persistent returns the dns-persist-01 challenge of an authorization.
func persistent(t *testing.T, authz map[string]any) map[string]any {
	t.Helper()
	for _, entry := range authz["challenges"].([]any) {
		if chal := entry.(map[string]any); chal["type"] == "dns-persist-01" {
			return chal
		}
	}
	t.Fatalf("no dns-persist-01 in %v", authz)
	return nil
}

// special returns the members that make a challenge or directory of a draft.
func special(object map[string]any) string {
	keys := slices.DeleteFunc(slices.Sorted(maps.Keys(object)), func(key string) bool {
		return !slices.Contains([]string{"issuer-domain-names", "issuerDomainNames", "accounturi", "token", "accountHashPrefix"}, key)
	})
	return strings.Join(keys, " ")
}

func TestParseDialect(t *testing.T) {
	for word, want := range map[string]lab.Dialect{
		"00":    {Draft: "00"},
		"01":    {Draft: "01"},
		"02":    {Draft: "02"},
		"02+01": {Draft: "02", AcceptAccountURL: true},
		"mixed": {Draft: "02", Mixed: true},
	} {
		if d, err := lab.ParseDialect(word); err != nil || d != want {
			t.Errorf("%s: %+v, %v", word, d, err)
		}
	}
	for _, word := range []string{"", "1", "03", "Mixed"} {
		if _, err := lab.ParseDialect(word); err == nil || !strings.Contains(err.Error(), "00, 01, 02, 02+01, mixed") {
			t.Errorf("%q: error %v", word, err)
		}
	}
	if _, err := lab.NewCA(lab.CAConfig{Dialect: lab.Dialect{Draft: "2"}}); err == nil {
		t.Error("a CA of an unknown draft")
	}
}

// TestHashVectors has the vectors of draft -02 section 10.2.
func TestHashVectors(t *testing.T) {
	for domain, want := range map[string]string{
		"example.com": "5SQm7n6tPh2-PlLbCKGnViTXX5z19SCN4cPGQHSk-kw",
		"*":           "NpDnSwUthQK8zCgFdefYxAdAVPnygMLbs9US6oO-5ug",
	} {
		if got := lab.AccountHash(domain, "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs", "https://ca.example/acct/123"); got != want {
			t.Errorf("%s: %s", domain, got)
		}
	}
}

func TestSplitTXT(t *testing.T) {
	for _, unit := range []string{"x", `\\`, `\"`, `\195`} {
		value := strings.Repeat(unit, 600)
		parts := lab.SplitTXT(value)
		if strings.Join(parts, "") != value || len(parts) != 3 || len(parts[0]) != 255*len(unit) || len(parts[2]) != 90*len(unit) {
			t.Errorf("%s: %d parts", unit, len(parts))
		}
	}
	for _, value := range []string{"", `\`, `a\`, `\1`, `\19x`} {
		if parts := lab.SplitTXT(value); !slices.Equal(parts, []string{value}) {
			t.Errorf("%q: %q", value, parts)
		}
	}
}

func TestShownMembers(t *testing.T) {
	const (
		old    = "accounturi issuer-domain-names"
		oldest = "issuer-domain-names"
		hashed = "issuerDomainNames"
		meta   = "accountHashPrefix issuerDomainNames"
	)
	for _, c := range []struct {
		dialect   lab.Dialect
		chal, dir []string // in turn
	}{
		{lab.Dialect{}, []string{old}, []string{""}},
		{lab.Dialect{Draft: "00"}, []string{oldest}, []string{""}},
		{lab.Dialect{Draft: "01"}, []string{old}, []string{""}},
		{lab.Dialect{Draft: "01", AcceptHashed: true}, []string{old}, []string{""}},
		{lab.Dialect{Draft: "01", BothMembers: true}, []string{old + " " + hashed}, []string{""}},
		{lab.Dialect{Draft: "02"}, []string{hashed}, []string{meta}},
		{lab.Dialect{Draft: "02", BothMembers: true}, []string{oldest + " " + hashed}, []string{meta}},
		{lab.Dialect{Draft: "02", AcceptAccountURL: true}, []string{hashed}, []string{meta}},
		{lab.Dialect{Draft: "02", Mixed: true}, []string{hashed, old}, []string{meta, ""}},
		{lab.Dialect{Draft: "00", Mixed: true}, []string{oldest, old}, []string{"", ""}},
	} {
		t.Run(fmt.Sprintf("%+v", c.dialect), func(t *testing.T) {
			names := []string{"ca.test", "ca.example"}
			w := newWorld(t, lab.CAConfig{Dialect: c.dialect, IssuerNames: names})
			tapped := w.tap()
			w.ca.SetDialect(c.dialect) // turns begin anew
			for i := range 4 {
				m := w.meta()
				if got := special(m); got != c.dir[i%len(c.dir)] {
					t.Errorf("directory %d shows %q", i, got)
				}
				if p, ok := m["accountHashPrefix"]; ok && p != w.ca.HashPrefix() {
					t.Errorf("prefix %v", p)
				}
				if n, ok := m["issuerDomainNames"]; ok && fmt.Sprint(n) != fmt.Sprint(names) {
					t.Errorf("names %v", n)
				}
				order, err := w.order(zone)
				if err != nil {
					t.Fatal(err)
				}
				w.start(order)
			}
			for i, authz := range tapped.of("authZ") {
				chal := persistent(t, authz)
				if got := special(chal); got != c.chal[i%len(c.chal)] {
					t.Errorf("authorization %d shows %q", i, got)
				}
				for _, member := range []string{"issuer-domain-names", "issuerDomainNames"} {
					if n, ok := chal[member]; ok && fmt.Sprint(n) != fmt.Sprint(names) {
						t.Errorf("names %v", n)
					}
				}
				if n := strings.Count(fmt.Sprint(authz), "token:"); n != 4 {
					t.Errorf("%d other challenges with a token", n)
				}
			}
			chals := tapped.of("chalZ")
			if len(chals) != 4 {
				t.Errorf("%d challenges", len(chals))
			}
			for i, chal := range chals {
				if got := special(chal); got != c.chal[i%len(c.chal)] {
					t.Errorf("challenge %d shows %q", i, got)
				}
			}
		})
	}
}

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

func TestThumbprint(t *testing.T) {
	w := bareWorld(t, lab.CAConfig{})
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []crypto.Signer{newKey(t), rsaKey} {
		for range 2 { // the second time it is there
			w.account, err = w.client.NewAccount(t.Context(), acme.Account{TermsOfServiceAgreed: true, PrivateKey: key})
			if err != nil {
				t.Fatal(err)
			}
			if got, want := w.ca.Thumbprint(w.account.Location), w.thumbprint(); got != want {
				t.Errorf("thumbprint %q, want %q", got, want)
			}
		}
	}
	if got := w.ca.Thumbprint(w.account.Location + "0"); got != "" {
		t.Errorf("thumbprint of nobody: %s", got)
	}
	forgotten := w.account.Location
	before := w.ca.Thumbprint(forgotten)
	w.ca.Forget()
	w.register()
	if w.ca.Thumbprint(forgotten) != before || w.ca.Thumbprint(w.account.Location) != w.thumbprint() {
		t.Error("forgotten")
	}
}

// thumbprint is that of the account's key as acmez computes it for the key
// authorization of another challenge.
func (w *world) thumbprint() string {
	w.t.Helper()
	order, err := w.order(zone)
	if err != nil {
		w.t.Fatal(err)
	}
	authz, err := w.client.GetAuthorization(w.t.Context(), w.account, order.Authorizations[0])
	if err != nil {
		w.t.Fatal(err)
	}
	for _, chal := range authz.Challenges {
		if _, thumbprint, ok := strings.Cut(chal.KeyAuthorization, "."); ok && chal.Type == "dns-01" {
			return thumbprint
		}
	}
	w.t.Fatalf("no key authorization in %+v", authz)
	return ""
}

func (w *world) rollover() {
	w.t.Helper()
	before := w.ca.Thumbprint(w.account.Location)
	account, err := w.client.AccountKeyRollover(w.t.Context(), w.account, newKey(w.t))
	if err != nil {
		w.t.Fatal(err)
	}
	w.account = account
	if after := w.ca.Thumbprint(w.account.Location); after == before || after != w.thumbprint() {
		w.t.Errorf("thumbprint %s after, %s before", after, before)
	}
}

func TestKeyRollover(t *testing.T) {
	strict := lab.Dialect{Draft: "02"}
	w := newWorld(t, lab.CAConfig{Dialect: strict})
	name := func(label string) string { return label + "." + zone }
	for _, label := range []string{"seen", "unseen", "changed", "fresh"} {
		w.publish(name(label), w.hashed(name(label)))
	}
	w.publish(name("many"), w.hashed("*"))
	w.publish(name("unseen-many"), w.hashed("*"))
	w.publish(name("failed"), w.hashed(name("failed")))
	w.publish(name("wild"), w.hashed(name("wild"))+"; policy=wildcard")
	for _, label := range []string{"seen", "changed", "many", "*.wild"} {
		w.want(name(label), "")
	}
	w.want("*."+name("failed"), "unauthorized") // no policy: its value was seen, but in vain

	w.rollover()
	w.publish(name("fresh"), w.hashed(name("fresh")))
	w.dns.AddTXT(0, "_validation-persist."+name("changed"), "other.test; accounturi=https://other.test/1")
	for range 2 {
		for label, verdict := range map[string]string{
			"seen": "", "changed": "", "many": "", "*.wild": "", "wild": "", "fresh": "",
			"unseen": "unauthorized", "unseen-many": "unauthorized", "failed": "unauthorized",
		} {
			w.want(name(label), verdict)
		}
		w.rollover() // and it still holds for the key before the last
		w.publish(name("fresh"), w.hashed(name("fresh")))
	}

	w.ca.SetDialect(lab.Dialect{Draft: "02", AcceptEarlierKeys: true})
	w.want(name("unseen"), "")
	w.want(name("unseen-many"), "")
	w.ca.SetDialect(strict)
	w.want(name("unseen"), "") // it has been validated now
	w.want(name("failed"), "unauthorized")
}

// TestRolloverToAnotherAccountsKey is answered 200 by Pebble, and in vain.
func TestRolloverToAnotherAccountsKey(t *testing.T) {
	w := newWorld(t, lab.CAConfig{Dialect: lab.Dialect{Draft: "02"}})
	other := w.account
	w.register()
	before := w.ca.Thumbprint(w.account.Location)
	w.client.AccountKeyRollover(t.Context(), w.account, other.PrivateKey)
	if w.ca.Count("key-change") == 0 {
		t.Error("no key-change")
	}
	if got := w.ca.Thumbprint(w.account.Location); got != before {
		t.Errorf("thumbprint %s", got)
	}
	w.publish(zone, w.hashed(zone))
	w.want(zone, "")
}

func TestHashPrefix(t *testing.T) {
	w := newWorld(t, lab.CAConfig{Dialect: lab.Dialect{Draft: "02"}})
	byDefault := w.ca.HashPrefix()
	if byDefault != strings.TrimSuffix(w.ca.Directory(), "dir")+"account-hash/" {
		t.Errorf("prefix %s", byDefault)
	}
	w.publish(zone, w.hashed(zone))
	w.want(zone, "")
	w.ca.SetHashPrefix("https://elsewhere.test/h?")
	if p := w.meta()["accountHashPrefix"]; p != "https://elsewhere.test/h?" {
		t.Errorf("prefix %v", p)
	}
	w.want(zone, "malformed")
	w.publish(zone, w.hashed(zone))
	w.want(zone, "")
	w.ca.SetHashPrefix("")
	w.want(zone, "malformed")
	if w.ca.HashPrefix() != byDefault {
		t.Errorf("prefix %s", w.ca.HashPrefix())
	}
}

// TestSetDialect changes it while an authorization is shown, held back by a
// delay and thus partly from memory.
func TestSetDialect(t *testing.T) {
	w := newWorld(t, lab.CAConfig{})
	tapped := w.tap()
	over := make(chan string, 10)
	w.ca.OnEvent(func(e lab.Event) {
		if e.Kind == "valid" || e.Kind == "invalid" {
			over <- e.Kind
		}
	})
	w.ca.SetValidationDelay(time.Hour)
	w.record(zone, "")
	order, err := w.order(zone)
	if err != nil {
		t.Fatal(err)
	}
	show := func(draft, want string) {
		t.Helper()
		w.ca.SetDialect(lab.Dialect{Draft: draft})
		if _, err := w.client.GetAuthorization(t.Context(), w.account, order.Authorizations[0]); err != nil {
			t.Fatal(err)
		}
		shown := tapped.of("authZ")
		if got := special(persistent(t, shown[len(shown)-1])); got != want {
			t.Errorf("-%s shows %q", draft, got)
		}
	}
	all := func() {
		t.Helper()
		show("02", "issuerDomainNames")
		show("00", "issuer-domain-names")
		show("01", "accounturi issuer-domain-names")
	}
	all()
	w.start(order)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	select {
	case kind := <-over:
		if kind != "valid" {
			t.Errorf("it became %s", kind)
		}
	case <-ctx.Done():
		t.Fatal("the validation does not end")
	}
	all()

	w.ca.SetValidationDelay(0)
	w.want(zone, "")
	w.ca.SetDialect(lab.Dialect{Draft: "02"})
	w.want(zone, "malformed")
	defer func() {
		if recover() == nil {
			t.Error("an unknown draft was taken")
		}
	}()
	w.ca.SetDialect(lab.Dialect{Draft: "03"})
}
