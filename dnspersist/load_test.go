package dnspersist

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp"
	_ "github.com/caddyserver/caddy/v2/modules/caddypki"
	"github.com/caddyserver/caddy/v2/modules/caddytls"
	_ "github.com/caddyserver/caddy/v2/modules/filestorage"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

func TestCheckChain(t *testing.T) {
	const (
		ours      = `{"module":"dns_persist"}`
		exclusive = `{"module":"dns_persist","exclusive":true}`
		internal  = `{"module":"internal"}`
		acme      = `{"module":"acme"}`
	)
	for name, test := range map[string]struct {
		issuers []string
		want    string
	}{
		"none":               {nil, ""},
		"ours":               {[]string{ours}, ""},
		"chain":              {[]string{ours, acme, internal}, ""},
		"loaded already":     {[]string{"", exclusive}, ""},
		"not JSON":           {[]string{"{", exclusive}, ""},
		"exclusive and acme": {[]string{exclusive, acme}, ""},
		"two":                {[]string{ours, exclusive}, "two dns_persist"},
		"internal after":     {[]string{exclusive, internal}, "tls internal"},
		"internal before":    {[]string{internal, exclusive}, "tls internal"},
	} {
		t.Run(name, func(t *testing.T) {
			var raw []json.RawMessage
			for _, i := range test.issuers {
				raw = append(raw, json.RawMessage(i))
			}
			err := checkChain(raw)
			if (test.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

func TestHopelessName(t *testing.T) {
	long := strings.Repeat(strings.Repeat("a", 60)+".", 4) + "example"
	for name, want := range map[string]string{
		"example.com": "", "*.example.com": "", "straße.example": "", "{env.HOST}": "",
		"192.0.2.1": "IP address", "2001:db8::1": "IP address", "[2001:db8::1]": "IP address",
		"example.com.": "ends with a dot", "*.*.example.com": "one wildcard", "a.*.example.com": "one wildcard",
		long: "at most 233", "*." + long: "at most 233",
	} {
		got := unsupportedName(name)
		if (want == "") != (got == "") || !strings.Contains(got, want) {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}

// provisionedApp returns the app of a configuration that is provisioned but not
// started, and what it logs.
func provisionedApp(t testing.TB, apps string) (*App, *observer.ObservedLogs) {
	t.Helper()
	folder, err := os.MkdirTemp("", "provisioned")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// jobs of CertMagic end a moment after their configuration, and may still write
		deadline := time.Now().Add(10 * time.Second)
		for err := os.RemoveAll(folder); err != nil; err = os.RemoveAll(folder) {
			if time.Now().After(deadline) {
				t.Error(err)
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	})
	dir, err := json.Marshal(folder)
	if err != nil {
		t.Fatal(err)
	}
	config := `{"admin":{"disabled":true},"logging":{"logs":{"default":{"level":"ERROR"}}},` +
		`"storage":{"module":"file_system","root":` + string(dir) + `},"apps":` + apps + `}`
	var cfg caddy.Config
	if err := caddy.StrictUnmarshalJSON([]byte(config), &cfg); err != nil {
		t.Fatal(err)
	}
	ctx, err := caddy.ProvisionContext(&cfg)
	if err != nil {
		t.Fatal(err)
	}
	app, err := ctx.AppIfConfigured("dns_persist")
	if err != nil {
		t.Fatal(err)
	}
	a := app.(*App)
	t.Cleanup(func() {
		if err := a.Cleanup(); err != nil {
			t.Error(err)
		}
	})
	core, logs := observer.New(zapcore.InfoLevel)
	a.logger = zap.New(core)
	return a, logs
}

func TestWarnAtLoad(t *testing.T) {
	long := strings.Repeat(strings.Repeat("a", 58)+".", 4) + "example"
	a, logs := provisionedApp(t, `{
		"tls": {"automation": {"policies": [
			{"subjects": ["192.0.2.1", "*.*.example.com", "good.example.com"], "issuers": [{"module": "dns_persist"}]},
			{"subjects": ["replaced.example.com"], "issuers": [{"module": "acme", "email": "me@example.com"}]},
			{"subjects": ["local.example.com"], "issuers": [{"module": "internal"}]},
			{"issuers": [{"module": "dns_persist"}, {"module": "acme"}]}
		]}},
		"http": {"servers": {"srv0": {"listen": [":8443"], "routes": [
			{"match": [{"host": ["dotted.example.com.", "plain.example.com", "`+long+`", "*.*.example.com"]}]}
		]}, "srv1": {"listen": [":80"], "routes": [
			{"match": [{"host": ["http.example.com."]}]}
		]}, "srv2": {"listen": [":8444"], "automatic_https": {"disable": true}, "routes": [
			{"match": [{"host": ["off.example.com."]}]}
		]}}}
	}`)
	a.warnAtLoad()

	var got []string
	for _, entry := range logs.All() {
		about := entry.ContextMap()["name"]
		if about == nil {
			about = entry.ContextMap()["subjects"]
		}
		line, err := json.Marshal(about)
		if err != nil {
			t.Fatal(err)
		}
		first, _, _ := strings.Cut(entry.Message, ":")
		got = append(got, entry.Level.String()+" "+first+" "+string(line))
	}
	want := []string{
		"warn a site's `tls` options have replaced the global cert_issuer dns_persist by acme; to keep it write the directive dns_persist, or issuer dns_persist in the tls block, with the options inside " + `["replaced.example.com"]`,
		`info dns_persist is in a chain of issuers []`,
		`warn Caddy never manages certificates for names with a final dot "dotted.example.com."`,
		`warn this name can never get a certificate with dns_persist "` + long + `"`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("logged\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestWarnAtLoadSaysNothingOfAGoodConfiguration(t *testing.T) {
	a, logs := provisionedApp(t, `{"tls": {"automation": {"policies": [
		{"subjects": ["example.com", "*.example.com"], "issuers": [{"module": "dns_persist", "exclusive": true}]},
		{"subjects": ["other.example.com"], "issuers": [{"module": "acme"}]}
	]}}}`)
	a.warnAtLoad()
	for _, entry := range logs.All() {
		t.Errorf("logged %s %v", entry.Message, entry.ContextMap())
	}
}

// Names that Caddy gives to its internal CA beside a global issuer are named, and those that no
// public CA knows at an issuer for one.
func TestWarnOfNamesForNoPublicCA(t *testing.T) {
	a, logs := provisionedApp(t, `{
		"tls": {"automation": {"policies": [{"issuers": [{"module": "dns_persist"}]}]}},
		"http": {"servers": {"srv0": {"listen": [":8443"], "routes": [{"match": [{"host": ["box.home.arpa", "app.internal", "localhost", "good.example"]}]}]}}}
	}`)
	a.warnAtLoad()
	if found := logs.FilterMessageSnippet("with its internal CA").All(); len(found) != 1 || len(found[0].ContextMap()["subjects"].([]any)) != 3 {
		t.Errorf("logged %v", logs.All())
	}
	for _, private := range []bool{false, true} {
		core, logs := observer.New(zapcore.WarnLevel)
		iss := &Issuer{DNS: &DNS{AllowPrivateNS: private}, ACMEIssuer: new(caddytls.ACMEIssuer), rt: &runtime{logger: zap.New(core)}}
		iss.warnUnsupported([]string{"localhost", "box.home.arpa", "good.example"})
		if got := logs.Len(); got != map[bool]int{false: 2, true: 0}[private] {
			t.Errorf("private CA %v: logged %v", private, logs.All())
		}
	}
}

// What a policy names is logged while the configuration is provisioned, so by `caddy validate`.
func TestWarnHopeless(t *testing.T) {
	for policy, want := range map[string][]string{
		"auto":  {"192.0.2.1", "*.*.example.com"},
		"exact": {"192.0.2.1", "*.*.example.com", "*.example.com"},
	} {
		core, logs := observer.New(zapcore.WarnLevel)
		iss := &Issuer{Policy: policy, rt: &runtime{logger: zap.New(core)}}
		iss.warnUnsupported([]string{"192.0.2.1", "*.*.example.com", "*.example.com", "good.example.com", "{env.HOST}"})
		var got []string
		for _, entry := range logs.All() {
			got = append(got, entry.ContextMap()["name"].(string))
		}
		if !slices.Equal(got, want) {
			t.Errorf("policy %s: warned of %q, want %q", policy, got, want)
		}
	}
}
