package commands

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"

	"github.com/dnspersist/caddy-dnspersist/dnspersist"
	"github.com/dnspersist/caddy-dnspersist/internal/e2e/harness"
)

// The names that the commands work on without a Caddy are those of one that runs, and those
// for which it manages certificates.
func TestManagedNames(t *testing.T) {
	e := newEnv(t, harness.Options{})
	e.Bind()
	n := func(label string) string { return e.Name(label) }
	caddyfile := e.Global("skip_install_trust", "cert_issuer dns_persist "+e.Block()) +
		fmt.Sprintf("%s, *.%s {\n\trespond a\n}\n", n("wild"), n("wild")) +
		fmt.Sprintf("covered.%s {\n\trespond b\n}\n", n("wild")) +
		fmt.Sprintf("forced.%s {\n\ttls force_automate\n\trespond c\n}\n", n("wild")) +
		fmt.Sprintf("%s {\n\ttls internal\n\trespond d\n}\n", n("internal")) +
		fmt.Sprintf("http://%s {\n\trespond e\n}\n", n("plain")) +
		fmt.Sprintf("%s:%d {\n\ttls {\n\t\tissuer dns_persist %s\n\t}\n\trespond f\n}\n", n("own"), e.HTTPSPort, e.Block("policy wildcard"))
	config, err := harness.Adapt(caddyfile)
	if err != nil {
		t.Fatal(err)
	}
	// what a Caddyfile cannot say
	var all map[string]any
	if err := json.Unmarshal(config, &all); err != nil {
		t.Fatal(err)
	}
	certificates := all["apps"].(map[string]any)["tls"].(map[string]any)["certificates"].(map[string]any)
	certificates["automate"] = append(certificates["automate"].([]any), n("automated"))
	if config, err = json.Marshal(all); err != nil {
		t.Fatal(err)
	}
	e.config += ".json"
	e.configure(string(config))

	want := []string{n("wild"), "*." + n("wild"), "forced." + n("wild"), n("own"), n("automated")}
	slices.Sort(want)
	names := func(r result) []string {
		t.Helper()
		var got []string
		for _, set := range decode[dnspersist.RecordsReply](t, r.out).Records {
			for _, w := range set.Wanted {
				got = append(got, w.Identifiers...)
			}
		}
		slices.Sort(got)
		return got
	}
	if got := names(e.ok("records", "--format", "json", "--dns", "never")); !slices.Equal(got, want) {
		t.Errorf("without Caddy: %q, want %q", got, want)
	}

	if err := caddy.Load(config, true); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Stop)
	if got := names(e.ok("records", "--format", "json", "--dns", "never", "--address", e.Admin)); !slices.Equal(got, want) {
		t.Errorf("from Caddy: %q, want %q", got, want)
	}
	var managed []string
	e.Eventually(harness.Soon, "all records to be asked for", func() error {
		managed = nil
		for _, l := range e.Logs("publish this TXT record once") {
			for _, id := range l["domains"].([]any) {
				if !slices.Contains(managed, id.(string)) {
					managed = append(managed, id.(string))
				}
			}
		}
		return harness.Want(len(managed), len(want))
	})
	slices.Sort(managed)
	if !slices.Equal(managed, want) {
		t.Errorf("managed are %s, want %s", strings.Join(managed, " "), strings.Join(want, " "))
	}
}

// Two policies with storages of their own have accounts of their own.
func TestStorageOfAPolicy(t *testing.T) {
	e := newEnv(t, harness.Options{})
	config, err := harness.Adapt(e.Global() + e.Site("a.example.test", e.Block()) + e.Site("b.example.test", e.Block("policy wildcard")) + e.Site("c.example.test", e.Block()))
	if err != nil {
		t.Fatal(err)
	}
	var all map[string]any
	if err := json.Unmarshal(config, &all); err != nil {
		t.Fatal(err)
	}
	policies := all["apps"].(map[string]any)["tls"].(map[string]any)["automation"].(map[string]any)["policies"].([]any)
	issuers := policies[0].(map[string]any)["issuers"]
	own := map[string]any{"module": "file_system", "root": e.Storage + "-other"}
	all["apps"].(map[string]any)["tls"].(map[string]any)["automation"].(map[string]any)["policies"] = append([]any{
		map[string]any{"subjects": []string{"c.example.test"}, "issuers": issuers, "storage": own},
	}, policies...)
	if config, err = json.Marshal(all); err != nil {
		t.Fatal(err)
	}
	e.config += ".json"
	e.configure(string(config))
	accounts := decode[dnspersist.AccountReply](t, e.ok("account", "--register", "--json").out).Accounts
	if len(accounts) != 2 || accounts[0].URL == accounts[1].URL {
		t.Fatalf("accounts %+v", accounts)
	}
	by := make(map[string]string)
	for _, set := range decode[dnspersist.RecordsReply](t, e.ok("records", "--format", "json", "--dns", "never").out).Records {
		by[set.Name] = set.Wanted[0].Account
	}
	a, b, c := by["_validation-persist.a.example.test"], by["_validation-persist.b.example.test"], by["_validation-persist.c.example.test"]
	if a == "" || a != b || c == "" || c == a {
		t.Errorf("accounts by name: %v", by)
	}
	if r := e.ends(1, "account", "rollover"); !strings.Contains(r.err, "several accounts") {
		t.Errorf("rollover of either: %s", r.err)
	}
}

// A managed name that can never be validated is told of and keeps no other from its record.
func TestHopelessNameBesideOthers(t *testing.T) {
	e := newEnv(t, harness.Options{})
	name := e.Name("good")
	e.Publish(name, e.Value(e.Bind(), false))
	e.configure(e.Global() + e.Site(name, e.Block()) + e.Site("*."+e.Name("exact"), e.Block("policy exact")))
	for _, args := range [][]string{{"records", "--format", "json"}, {"check"}, {"publish", "--dry-run"}} {
		r := e.ok(args...)
		if !strings.Contains(r.err, "warning: left out: *."+e.Name("exact")) || !strings.Contains(r.out+r.err, name) {
			t.Errorf("%s: %s\n%s", args[0], r.out, r.err)
		}
	}
	if r := e.ends(1, "records", name, "*."+e.Name("exact")); !strings.Contains(r.err, "policy exact") {
		t.Errorf("a given name: %s", r.err)
	}
}
