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
	caddyfile := e.Global("cert_issuer dns_persist "+e.Block()) +
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
	if got := names(e.well("records", "--format", "json", "--dns", "never")); !slices.Equal(got, want) {
		t.Errorf("without Caddy: %q, want %q", got, want)
	}

	if err := caddy.Load(config, true); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Stop)
	if got := names(e.well("records", "--format", "json", "--dns", "never", "--address", e.Admin)); !slices.Equal(got, want) {
		t.Errorf("from Caddy: %q, want %q", got, want)
	}
	var managed []string
	e.Eventually(harness.Soon, "all records to be asked for", func() error {
		managed = nil
		for _, l := range e.Logs("publish this TXT record once") {
			for _, id := range l["identifiers"].([]any) {
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
