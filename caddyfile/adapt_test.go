package caddyfile_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/modules/caddyevents/eventsconfig"
	"github.com/caddyserver/caddy/v2/modules/caddytls"

	_ "github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp/standard"
	_ "github.com/caddyserver/caddy/v2/modules/caddypki"
	_ "github.com/caddyserver/caddy/v2/modules/filestorage"

	_ "github.com/dnspersist/caddy-dnspersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist"
	_ "github.com/dnspersist/caddy-dnspersist/internal/rfc2136"
)

var update = flag.Bool("update", false, "write what the adapter gives into the golden files")

const separator = "----------"

// golden is a file with a Caddyfile and, below a line of hyphens, the JSON it adapts
// to or a part of the error.
type golden struct {
	name, path, input, want string
}

func goldens(t testing.TB) []golden {
	t.Helper()
	paths, err := filepath.Glob("testdata/*.caddyfiletest")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	all := make([]golden, 0, len(paths))
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		text := strings.ReplaceAll(string(data), "\r\n", "\n")
		input, want, _ := strings.Cut(text, separator)
		all = append(all, golden{
			name: strings.TrimSuffix(filepath.Base(path), ".caddyfiletest"), path: path,
			input: strings.TrimSpace(input) + "\n", want: strings.TrimSpace(want),
		})
	}
	return all
}

// adapt returns the indented JSON of a Caddyfile.
func adapt(input string) (string, []caddyconfig.Warning, error) {
	out, warnings, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(input), map[string]any{"filename": "Caddyfile"})
	if err != nil {
		return "", warnings, err
	}
	var indented bytes.Buffer
	if err := json.Indent(&indented, out, "", "\t"); err != nil {
		return "", warnings, err
	}
	return indented.String(), warnings, nil
}

func TestAdapt(t *testing.T) {
	for _, g := range goldens(t) {
		t.Run(g.name, func(t *testing.T) {
			got, warnings, err := adapt(g.input)
			if *update {
				if err != nil {
					got = err.Error()
				}
				if err := os.WriteFile(g.path, []byte(g.input+separator+"\n"+got+"\n"), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			for _, w := range warnings {
				t.Errorf("warning: %s", w)
			}
			if strings.HasPrefix(g.want, "{") {
				if err != nil {
					t.Fatal(err)
				}
				if got != g.want {
					t.Errorf("adapted to\n%s\nwant\n%s", got, g.want)
				}
				return
			}
			if err == nil {
				t.Fatalf("no error, want %q; adapted to\n%s", g.want, got)
			}
			if g.want == "" || err.Error() != g.want {
				t.Errorf("error\n%s\nwant\n%s", err, g.want)
			}
		})
	}
}

// The directive is no handler; Caddy's own error says it and must not show a key.
func TestAdaptInRoute(t *testing.T) {
	_, _, err := adapt("example.com {\n\troute {\n\t\tdns_persist {\n\t\t\taccount_key hush\n\t\t}\n\t}\n}\n")
	if err == nil || !strings.Contains(err.Error(), "something other than an HTTP route") {
		t.Fatalf("got %v", err)
	}
	if strings.Contains(err.Error(), "hush") {
		t.Errorf("the error shows the account key: %s", err)
	}
}

// Each issuer of ours has to decode without unknown fields and to come out again as
// it went in: Caddy compares and merges policies by their JSON.
func TestAdaptedJSONIsStable(t *testing.T) {
	var found int
	for _, g := range goldens(t) {
		first, _, err := adapt(g.input)
		if err != nil {
			continue
		}
		t.Run(g.name, func(t *testing.T) {
			second, _, err := adapt(g.input)
			if err != nil || first != second {
				t.Errorf("adapting twice gives different JSON (%v)", err)
			}
			for _, raw := range ourIssuers(t, first) {
				found++
				checkStable(t, raw)
			}
		})
	}
	if found == 0 {
		t.Error("no golden file has an issuer of ours")
	}
}

func checkStable(t *testing.T, raw json.RawMessage) {
	t.Helper()
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(raw, &fields); err != nil {
		t.Fatal(err)
	}
	delete(fields, "module")
	want, err := json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	iss := &dnspersist.Issuer{ACMEIssuer: new(caddytls.ACMEIssuer)}
	if err := caddy.StrictUnmarshalJSON(want, iss); err != nil {
		t.Fatalf("%s: %v", want, err)
	}
	out, err := json.Marshal(iss)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := sorted(t, out), sorted(t, want); got != want {
		t.Errorf("decoded and encoded again it is\n%s\nwant\n%s", got, want)
	}
}

// sorted returns JSON with the keys of all objects in order.
func sorted(t *testing.T, raw []byte) string {
	t.Helper()
	var v any
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	if err := dec.Decode(&v); err != nil {
		t.Fatal(err)
	}
	out, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// policies returns the automation policies of a configuration.
func policies(t *testing.T, config string) []caddytls.AutomationPolicy {
	t.Helper()
	var c struct {
		Apps struct {
			TLS struct {
				Automation struct {
					Policies []caddytls.AutomationPolicy `json:"policies"`
				} `json:"automation"`
			} `json:"tls"`
		} `json:"apps"`
	}
	if err := json.Unmarshal([]byte(config), &c); err != nil {
		t.Fatal(err)
	}
	return c.Apps.TLS.Automation.Policies
}

func ourIssuers(t *testing.T, config string) []json.RawMessage {
	t.Helper()
	var all []json.RawMessage
	for _, policy := range policies(t, config) {
		for _, raw := range policy.IssuersRaw {
			var m struct {
				Module string `json:"module"`
			}
			if err := json.Unmarshal(raw, &m); err != nil {
				t.Fatal(err)
			}
			if m.Module == "dns_persist" {
				all = append(all, raw)
			}
		}
	}
	return all
}
