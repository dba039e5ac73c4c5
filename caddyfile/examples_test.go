package caddyfile_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	_ "github.com/caddyserver/caddy/v2/modules/metrics" // the handler in examples/monitoring
)

func TestExamples(t *testing.T) {
	t.Setenv("DNS_KEY", "c2VjcmV0")
	var paths []string
	for _, pattern := range []string{"../examples/*.caddyfile", "../examples/*/*.caddyfile"} {
		found, err := filepath.Glob(pattern)
		if err != nil || len(found) == 0 {
			t.Fatalf("no examples: %v", err)
		}
		paths = append(paths, found...)
	}
	for _, path := range paths {
		t.Run(filepath.Base(path), func(t *testing.T) {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			checkCaddyfile(t, strings.ReplaceAll(string(data), "\r\n", "\n"))
		})
	}
}

// checkCaddyfile wants a formatted Caddyfile that adapts without a warning, uses the
// issuer and passes validation.
func checkCaddyfile(t *testing.T, input string) {
	t.Helper()
	if formatted := string(caddyfile.Format([]byte(input))); formatted != input {
		t.Errorf("not as `caddy fmt` writes it, which is\n%s", formatted)
	}
	config, warnings, err := adapt(input)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range warnings {
		t.Errorf("warning: %s", w)
	}
	checkJSON(t, config)
}

func checkJSON(t *testing.T, config string) {
	t.Helper()
	var cfg caddy.Config
	if err := caddy.StrictUnmarshalJSON([]byte(config), &cfg); err != nil {
		t.Fatal(err)
	}
	if len(ourIssuers(t, config)) == 0 {
		t.Error("dns_persist is not used")
	}
	if err := validate(t, config, t.TempDir()); err != nil {
		t.Error(err)
	}
}

var example = regexp.MustCompile("(?s)<!-- example: (caddyfile|json) -->\\s*```(\\w+)\n(.*?)```")

// The examples of the README and the reference are marked with a comment before them.
func TestExamplesOfPages(t *testing.T) {
	t.Setenv("DNS_KEY", "c2VjcmV0")
	for _, page := range []string{"README.md", "docs/reference.md"} {
		data, err := os.ReadFile("../" + page)
		if err != nil {
			t.Fatal(err)
		}
		checkPage(t, strings.ReplaceAll(string(data), "\r\n", "\n"))
	}
}

func checkPage(t *testing.T, text string) {
	t.Helper()
	found := example.FindAllStringSubmatch(text, -1)
	if blocks := strings.Count(text, "```caddyfile\n") + strings.Count(text, "```json\n"); len(found) == 0 || blocks != len(found) {
		t.Errorf("%d blocks of configuration, and %d of them are marked", blocks, len(found))
	}
	if marks := strings.Count(text, "<!-- example: "); marks != len(found) {
		t.Errorf("%d examples are marked, %d have a block of code after the mark", marks, len(found))
	}
	for _, m := range found {
		kind, language, block := m[1], m[2], m[3]
		title, _, _ := strings.Cut(strings.TrimSpace(block), "\n")
		t.Run(kind+" "+title, func(t *testing.T) {
			if kind != language {
				t.Errorf("it is marked as %s and written as %s", kind, language)
			}
			if kind == "caddyfile" {
				checkCaddyfile(t, block)
				return
			}
			checkPageJSON(t, block)
		})
	}
}

// checkPageJSON takes a whole configuration, or an issuer alone.
func checkPageJSON(t *testing.T, block string) {
	t.Helper()
	var top map[string]json.RawMessage
	if err := json.Unmarshal([]byte(block), &top); err != nil {
		t.Fatal(err)
	}
	if _, ok := top["module"]; ok {
		block = `{"apps":{"tls":{"automation":{"policies":[{"issuers":[` + block + `]}]}}}}`
	}
	checkJSON(t, block)
}
