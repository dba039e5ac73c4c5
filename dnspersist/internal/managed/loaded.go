package managed

import (
	"cmp"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddytls"
	"github.com/caddyserver/certmagic"
	"golang.org/x/net/idna"
)

// Loaded is the plan of a configuration that Caddy has loaded. ours tells which issuers are ours,
// and what they are in the plan.
func Loaded[I any](ctx caddy.Context, ours func(certmagic.Issuer) (I, bool)) Plan[I] {
	var p Plan[I]
	app, err := ctx.AppIfConfigured("tls")
	if err != nil {
		return p.indexed()
	}
	tls := app.(*caddytls.TLS)
	if tls.Automation != nil {
		for _, policy := range tls.Automation.Policies {
			one := Policy[I]{Subjects: policy.Subjects()}
			for _, i := range policy.Issuers {
				if iss, ok := ours(i); ok {
					one.Issuers = append(one.Issuers, iss)
				}
			}
			p.policies = append(p.policies, one)
		}
	}
	p.forced = keysOf(tls, "automateNames")
	if app, err := ctx.AppIfConfigured("http"); err == nil {
		p.names = append(p.names, certificateHosts(app.(*caddyhttp.App), isLoaded(tls))...)
	}
	return p.indexed()
}

// keysOf are the keys of a map that Caddy keeps to itself: a test fails when it moves it.
func keysOf(tls *caddytls.TLS, field string) []string {
	m := reflect.ValueOf(tls).Elem().FieldByName(field)
	if m.Kind() != reflect.Map || m.Type().Key().Kind() != reflect.String {
		return nil
	}
	var keys []string
	for _, key := range m.MapKeys() {
		keys = append(keys, key.String())
	}
	return keys
}

// isLoaded tells for which names the configuration loads certificates, which Caddy then does
// not manage. Its own function for that counts the managed ones as well.
func isLoaded(tls *caddytls.TLS) func(name string) bool {
	hashes := setOf(keysOf(tls, "loaded"))
	return func(name string) bool {
		return len(hashes) > 0 && slices.ContainsFunc(caddytls.AllMatchingCertificates(name), func(c certmagic.Certificate) bool { return hashes[c.Hash()] })
	}
}

// certificateHosts are the sites' names for which Caddy manages certificates.
func certificateHosts(app *caddyhttp.App, loaded func(string) bool) []string {
	var all []string
	repl := caddy.NewReplacer()
	for _, server := range app.Servers {
		if server == nil || HasNoCertificates(app, server) {
			continue
		}
		auto := cmp.Or(server.AutoHTTPS, new(caddyhttp.AutoHTTPSConfig))
		for _, h := range asciiAll(Hosts(server.Routes)) {
			h = repl.ReplaceAll(h, "")
			if certmagic.SubjectQualifiesForCert(h) && !certmagic.SubjectIsIP(h) &&
				!slices.Contains(auto.Skip, h) && !slices.Contains(auto.SkipCerts, h) && (auto.IgnoreLoadedCerts || !loaded(h)) {
				all = append(all, h)
			}
		}
	}
	return all
}

// HasNoCertificates reports whether Caddy manages no certificates for a server.
func HasNoCertificates(app *caddyhttp.App, server *caddyhttp.Server) bool {
	if server.AutoHTTPS != nil && (server.AutoHTTPS.Disabled || server.AutoHTTPS.DisableCerts) {
		return true
	}
	port := uint(caddyhttp.DefaultHTTPPort)
	if app.HTTPPort > 0 {
		port = uint(app.HTTPPort)
	}
	for _, listen := range server.Listen {
		addr, err := caddy.ParseNetworkAddress(listen)
		if err != nil || addr.StartPort != port || addr.EndPort != port {
			return false
		}
	}
	return true
}

// Hosts returns all names in the routes' host matchers, loaded or as JSON, also those that do not
// qualify for a certificate.
func Hosts(routes caddyhttp.RouteList) []string {
	var hosts []string
	for _, route := range routes {
		for _, raw := range route.MatcherSetsRaw {
			var match caddyhttp.MatchHost
			_ = json.Unmarshal(raw["host"], &match) // Caddy reports what is wrong with it
			hosts = append(hosts, match...)
		}
		for _, set := range route.MatcherSets {
			for _, matcher := range set {
				if match, ok := matcher.(*caddyhttp.MatchHost); ok {
					hosts = append(hosts, *match...)
				}
			}
		}
	}
	return hosts
}

// Config is what is read of a configuration in Caddy's JSON that no server runs. The rest is not
// looked at: a machine that only makes records has none of the sites' files.
type Config struct {
	Storage json.RawMessage `json:"storage"`
	Admin   struct {
		Identity caddy.IdentityConfig `json:"identity"`
	} `json:"admin"`
	Apps struct {
		TLS        caddytls.TLS    `json:"tls"`
		HTTP       caddyhttp.App   `json:"http"`
		DNSPersist json.RawMessage `json:"dns_persist"`
	} `json:"apps"`

	// clients are the names of client certificates that a proxy of whichever app asks for.
	clients []string
}

// PolicyConfig is an automation policy, or the identity of Caddy's admin endpoint.
type PolicyConfig struct {
	caddytls.AutomationPolicy
	IsIdentity bool
}

// ReadConfig reads a configuration in Caddy's JSON.
func ReadConfig(cfgJSON []byte) (*Config, error) {
	c := new(Config)
	if err := json.Unmarshal(cfgJSON, c); err != nil {
		return nil, fmt.Errorf("reading the configuration: %w; with a file in another format use --adapter", err)
	}
	c.clients = clientNames(cfgJSON)
	return c, nil
}

// Offline is the plan of a configuration that no server runs. ours makes the issuers of a policy
// that are ours.
func Offline[I any](c *Config, ours func(PolicyConfig) ([]I, error)) (p Plan[I], err error) {
	tls := &c.Apps.TLS
	if tls.Automation != nil {
		for _, policy := range tls.Automation.Policies {
			policy = cmp.Or(policy, new(caddytls.AutomationPolicy))
			one := Policy[I]{Subjects: asciiAll(Replace(policy.SubjectsRaw))}
			if one.Issuers, err = ours(PolicyConfig{AutomationPolicy: *policy}); err != nil {
				return p, err
			}
			p.policies = append(p.policies, one)
		}
	}
	id := c.Admin.Identity
	p.identity.Subjects = Replace(id.Identifiers)
	p.identity.Issuers, err = ours(PolicyConfig{caddytls.AutomationPolicy{SubjectsRaw: id.Identifiers, IssuersRaw: id.IssuersRaw}, true})
	if err != nil {
		return p, err
	}
	var automate []string
	_ = json.Unmarshal(tls.CertificatesRaw["automate"], &automate) // Caddy reports what is wrong with it
	p.forced = append(p.forced, Replace(automate)...)
	loaded := loadedFrom(tls.CertificatesRaw)
	if tls.EncryptedClientHello != nil {
		for _, ech := range tls.EncryptedClientHello.Configs {
			if n := ascii(strings.TrimSpace(ech.PublicName)); n != "" && !loaded(n) {
				p.forced = append(p.forced, n)
			}
		}
	}
	p.names = append(p.names, c.clients...)
	return p.site(certificateHosts(&c.Apps.HTTP, loaded)).indexed(), nil
}

// clientNames are the names of client certificates that Caddy manages for its proxies: that of
// http, in handlers at any depth, and those of other apps that take the same settings.
func clientNames(cfgJSON []byte) []string {
	var cfg struct {
		Apps map[string]any `json:"apps"`
	}
	if json.Unmarshal(cfgJSON, &cfg) != nil {
		return nil
	}
	var names []string
	var walk func(any)
	walk = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			for key, inner := range v {
				if name, ok := inner.(string); ok && key == "client_certificate_automate" && name != "" {
					names = append(names, name)
				}
				walk(inner)
			}
		case []any:
			for _, inner := range v {
				walk(inner)
			}
		}
	}
	for _, app := range cfg.Apps {
		walk(app)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Replace expands the placeholders in names as Caddy does when it loads them.
func Replace(names []string) []string {
	repl := caddy.NewReplacer()
	var all []string
	for _, s := range names {
		all = append(all, strings.TrimSpace(repl.ReplaceAll(s, "")))
	}
	return all
}

// ascii is a name as Caddy compares it: its adapters and configurations may have it in
// Unicode, and Caddy converts it when it loads them.
func ascii(name string) string {
	converted, err := idna.ToASCII(name)
	if err != nil {
		return strings.ToLower(name) // Caddy refuses the configuration
	}
	return strings.ToLower(converted)
}

func asciiAll(list []string) []string {
	all := make([]string, 0, len(list))
	for _, s := range list {
		all = append(all, ascii(s))
	}
	return all
}
