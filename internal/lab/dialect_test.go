package lab_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

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
