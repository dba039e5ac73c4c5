//go:build unix

package commands

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
	"github.com/dnspersist/caddy-dnspersist/internal/e2e/harness"
	"github.com/dnspersist/caddy-dnspersist/internal/realdns"

	_ "github.com/dnspersist/caddy-dnspersist/internal/rfc2136" // as cmd/caddy has it
)

// A credential that is there for one run adds our value at real servers, beside somebody
// else's, and takes exactly it away again.
func TestPublish(t *testing.T) {
	for name, start := range map[string]func(testing.TB, ...realdns.Zone) *realdns.Server{"BIND": realdns.BIND, "Knot": realdns.Knot} {
		t.Run(name, func(t *testing.T) {
			e := newEnv(t, harness.Options{})
			const site, vname = "www.example.test", "_validation-persist.www.example.test"
			foreign := []string{"other.example; accounturi=https://other.example/1", `say "hi"; C:\dir`}
			text := "@ NS ns1\nns1 A 127.0.0.1\nwww A 192.0.2.80\n"
			for _, v := range foreign {
				text += fmt.Sprintf("_validation-persist.www 300 TXT %s\n", record.Quote(v))
			}
			server := start(t, realdns.Zone{Origin: "example.test", Text: text})
			servers, err := json.Marshal(map[string]string{"127.0.0.1:53": server.Addr()})
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(e.servers, servers, 0o600); err != nil {
				t.Fatal(err)
			}
			e.configure(e.Global() + e.Site(site, strings.ReplaceAll(e.Block(), e.DNS.Resolver(), server.Addr())))
			ours := e.Value(e.Bind(), false)
			provider := filepath.Join(t.TempDir(), "provider.json")
			raw, err := json.Marshal(map[string]string{
				"name": "rfc2136", "key_name": realdns.Key, "key_alg": "hmac-sha256", "key": realdns.KeySecret, "server": server.Addr(),
			})
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(provider, raw, 0o600); err != nil {
				t.Fatal(err)
			}
			shows := func(want ...string) {
				t.Helper()
				answer, err := server.Query(vname, dns.TypeTXT)
				if err != nil {
					t.Fatal(err)
				}
				var got []string
				for _, rr := range answer.Answer {
					got = append(got, strings.ReplaceAll(strings.ReplaceAll(strings.Join(rr.(*dns.TXT).Txt, ""), `\"`, `"`), `\\`, `\`))
					if rr.Header().Ttl != 300 {
						t.Errorf("TTL %d", rr.Header().Ttl)
					}
				}
				slices.Sort(got)
				slices.Sort(want)
				if !slices.Equal(got, want) {
					t.Errorf("there are %q, want %q", got, want)
				}
			}

			if r := e.ends(2, "publish", "--dry-run"); r.out != fmt.Sprintf("add %s. 300 IN TXT %s\n", vname, record.Quote(ours)) {
				t.Errorf("dry run: %q\n%s", r.out, r.err)
			}
			shows(foreign...)
			one := change{
				Name: vname, Domains: []string{site}, CA: e.CA.Directory(), Account: e.Bind(), Value: ours, TTL: 300, Result: "to_add",
			}
			e.changes(2, one, "publish", "--dry-run")
			for _, result := range []string{"added", "published"} {
				one.Result = result
				if result == "published" {
					one.Value, one.TTL = "", 0
				}
				e.changes(0, one, "publish", "--provider", provider)
				shows(append(foreign, ours)...)
			}
			e.ok("publish", "--dry-run") // nothing is to be done
			e.ok("check")
			if r := e.ends(2, "unpublish", site, "--dry-run"); r.out != fmt.Sprintf("remove %s. IN TXT %s\n", vname, record.Quote(ours)) {
				t.Errorf("dry run: %q\n%s", r.out, r.err)
			}
			one.Value, one.TTL = ours, 0
			for _, result := range []string{"to_remove", "removed", "not_ours"} {
				one.Result = result
				switch result {
				case "to_remove":
					e.changes(2, one, "unpublish", site, "--dry-run")
					continue
				case "not_ours":
					one.Value = ""
				}
				e.changes(0, one, "unpublish", site, "--provider", provider)
				shows(foreign...)
			}

			// with the configured provider, which a configuration may leave to the command; then
			// for a name that is gone from the configuration
			block := strings.ReplaceAll(e.Block(fmt.Sprintf("dns rfc2136 {\n\t\t\tkey_name %s\n\t\t\tkey_alg hmac-sha256\n\t\t\tkey %s\n\t\t\tserver %s\n\t\t}\n\t\tpublish never",
				realdns.Key, realdns.KeySecret, server.Addr())), e.DNS.Resolver(), server.Addr())
			e.configure(e.Global() + e.Site(site, block))
			e.ok("publish")
			shows(append(foreign, ours)...)
			if r := e.ok("unpublish", "--stale"); !strings.Contains(r.err, "nothing was written for a name that needs it no more") {
				t.Errorf("stale: %q\n%s", r.out, r.err)
			}
			e.configure(e.Global() + e.Site("other.example.test", block))
			if r := e.ends(2, "unpublish", "--stale", "--dry-run"); r.out != fmt.Sprintf("remove %s. IN TXT %s\n", vname, record.Quote(ours)) {
				t.Errorf("stale, dry run: %q\n%s", r.out, r.err)
			}
			shows(append(foreign, ours)...)
			e.ok("unpublish", "--stale")
			shows(foreign...)
			e.configure(e.Global() + e.Site(site, strings.ReplaceAll(e.Block(), e.DNS.Resolver(), server.Addr())))

			// what goes wrong says what to do, and never the key
			for want, broken := range map[string]string{
				"[redacted]":              strings.ReplaceAll(string(raw), realdns.KeySecret, "d3Jvbmcgd3JvbmcgIHdyb25n"),
				"unknown module":          `{"name": "nonsense", "key": "` + realdns.KeySecret + `"}`,
				"no JSON object":          realdns.KeySecret,
				`has no "name"`:           `{"key": "` + realdns.KeySecret + `"}`,
				"needs key_name, key and": `{"name": "rfc2136"}`,
			} {
				r := e.caddyIn(broken, "publish", "--provider", "-", "--wait", "3s", "--config", e.config)
				if r.status != 1 || want != "[redacted]" && !strings.Contains(r.err, want) || strings.Contains(r.err, "d3Jvbmcgd3JvbmcgIHdyb25n") || strings.Contains(r.err, realdns.KeySecret) {
					t.Errorf("%s: %d %s", want, r.status, r.err)
				}
			}
			shows(foreign...)
			if strings.Contains(e.said.String(), realdns.KeySecret) {
				t.Error("the provider's key was shown")
			}
		})
	}
}

// change is the JSON of what publish and unpublish do.
type change struct {
	Name    string   `json:"name"`
	Domains []string `json:"domains"`
	CA      string   `json:"ca"`
	Account string   `json:"account"`
	Value   string   `json:"value"`
	TTL     int      `json:"ttl"`
	Result  string   `json:"result"`
	Error   string   `json:"error"`
}

// changes checks that a command makes one change, by its JSON.
func (e *env) changes(status int, want change, args ...string) {
	e.T.Helper()
	r := e.ends(status, append(args, "--format", "json")...)
	reply := decode[struct{ Changes []change }](e.T, r.out)
	if len(reply.Changes) != 1 || !reflect.DeepEqual(reply.Changes[0], want) {
		e.T.Errorf("%q: %+v, want %+v\n%s", args, reply.Changes, want, r.err)
	}
}

// A record below a wildcard's name is not published without a word for it.
func TestPublishRefusesToShadow(t *testing.T) {
	e := newEnv(t, harness.Options{})
	e.configure(e.Global() + e.Site("shop.example.test", e.Block()))
	e.Bind()
	e.DNS.SetRR(0, "*.example.test. 300 IN A 192.0.2.80")
	if r := e.ends(1, "publish", "--dry-run"); !strings.Contains(r.err, "--allow-shadowing") || r.out != "" {
		t.Errorf("%q, %s", r.out, r.err)
	}
	r := e.ends(1, "publish", "--dry-run", "--format", "json")
	if reply := decode[struct{ Changes []change }](t, r.out); len(reply.Changes) != 1 || reply.Changes[0].Result != "failed" || !strings.Contains(reply.Changes[0].Error, "--allow-shadowing") {
		t.Errorf("%q, %s", r.out, r.err)
	}
	if r := e.ends(2, "publish", "--dry-run", "--allow-shadowing"); !strings.HasPrefix(r.out, "add _validation-persist.shop.example.test. 3600 IN TXT") {
		t.Errorf("%q, %s", r.out, r.err)
	}
	if r := e.ends(1, "publish"); !strings.Contains(r.err, "--provider is missing") {
		t.Errorf("%s", r.err)
	}
	if r := e.ends(1, "unpublish", "--dry-run"); !strings.Contains(r.err, "names have to be given") {
		t.Errorf("%s", r.err)
	}
	if r := e.ends(1, "unpublish", "--stale", "shop.example.test"); !strings.Contains(r.err, "none can be given") {
		t.Errorf("%s", r.err)
	}
}

// A name and its wildcard have one record, which is not removed for the one while the other
// needs it.
func TestUnpublishHeedsTheWildcard(t *testing.T) {
	e := newEnv(t, harness.Options{})
	both, alone := e.Name("both"), e.Name("alone")
	e.configure(e.Global() + e.Site(both+", *."+both, e.Block()) + e.Site(alone, e.Block()))
	e.Bind()
	for given, other := range map[string]string{"*." + both: both, both: "*." + both} {
		if r := e.ends(1, "unpublish", given, "--dry-run"); !strings.Contains(r.err, "serves "+other+" as well: give these names too") || r.out != "" {
			t.Errorf("%s: %q, %s", given, r.out, r.err)
		}
	}
	for _, given := range [][]string{{both, "*." + both}, {alone}} {
		if r := e.ok(append([]string{"unpublish", "--dry-run"}, given...)...); !strings.Contains(r.err, "nothing there is noted as ours") {
			t.Errorf("%q: %q, %s", given, r.out, r.err)
		}
	}
	// the wildcard is not managed any more, but its certificate is still valid
	e.Publish(both, e.Value(e.Bind(), true))
	e.Load(e.Global() + e.Site("*."+both, e.Block()))
	e.WaitTrusted("a."+both, harness.Soon)
	e.Stop()
	e.configure(e.Global("cert_issuer dns_persist "+e.Block()) + e.Site(both, e.Block("policy wildcard")) + "https:// {\n\ttls {\n\t\ton_demand\n\t}\n}\n")
	if r := e.ends(1, "unpublish", both, "--dry-run"); !strings.Contains(r.err, "serves *."+both+" as well") {
		t.Errorf("with a certificate: %q, %s", r.out, r.err)
	}
	// the two have other options than each other, and are looked at apart
	e.ok("unpublish", both, "*."+both, "--dry-run")
	// nothing serves it any more, so it will not be renewed
	e.configure(e.Global() + e.Site(alone, e.Block()) + e.Site(both, e.Block()))
	e.ok("unpublish", both, "--dry-run")
}

// Commands that publish the same names at once write each value once, and all of them is known
// afterwards.
func TestPublishAtOnce(t *testing.T) {
	e := newEnv(t, harness.Options{})
	server := realdns.BIND(t, realdns.Zone{Origin: "example.test", Text: "@ NS ns1\nns1 A 127.0.0.1\n"})
	servers, err := json.Marshal(map[string]string{"127.0.0.1:53": server.Addr()})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(e.servers, servers, 0o600); err != nil {
		t.Fatal(err)
	}
	names := []string{"one.example.test", "two.example.test"}
	e.configure(e.Global() + e.Site(strings.Join(names, ", "), strings.ReplaceAll(e.Block(fmt.Sprintf(
		"dns rfc2136 {\n\t\t\tkey_name %s\n\t\t\tkey_alg hmac-sha256\n\t\t\tkey %s\n\t\t\tserver %s\n\t\t}", realdns.Key, realdns.KeySecret, server.Addr())),
		e.DNS.Resolver(), server.Addr())))
	e.Bind()
	var group sync.WaitGroup
	for range 3 {
		cmd := e.prepare("publish", "--config", e.config)
		group.Go(func() {
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
	group.Wait()
	for _, want := range []int{1, 0} {
		for _, n := range names {
			answer, err := server.Query("_validation-persist."+n, dns.TypeTXT)
			if err != nil || len(answer.Answer) != want {
				t.Errorf("%s has %v, %v, want %d", n, answer, err, want)
			}
		}
		if want == 1 {
			e.ok(append([]string{"unpublish"}, names...)...)
		}
	}
}
