package managed

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"golang.org/x/net/idna"
)

// Config is what is read of a configuration in Caddy's JSON that no server runs. The rest is not
// looked at: a machine that only makes records has none of the sites' files.
type Config struct {
	Storage json.RawMessage `json:"storage"`
	Admin   struct {
		Identity struct {
			Identifiers []string          `json:"identifiers"`
			Issuers     []json.RawMessage `json:"issuers"`
		} `json:"identity"`
	} `json:"admin"`
	Apps struct {
		TLS struct {
			Resolvers    []string                   `json:"resolvers"`
			Certificates map[string]json.RawMessage `json:"certificates"`
			ECH          struct {
				Configs []struct {
					PublicName string `json:"public_name"`
				} `json:"configs"`
			} `json:"encrypted_client_hello"`
			Automation struct {
				Policies []PolicyConfig `json:"policies"`
			} `json:"automation"`
		} `json:"tls"`
		HTTP httpConfig `json:"http"`
	} `json:"apps"`

	// clients are the names of client certificates that a proxy of whichever app asks for.
	clients []string
}

// PolicyConfig is an automation policy, or the identity of Caddy's admin endpoint.
type PolicyConfig struct {
	Subjects           []string          `json:"subjects"`
	Issuers            []json.RawMessage `json:"issuers"`
	Storage            json.RawMessage   `json:"storage"`
	RenewalWindowRatio float64           `json:"renewal_window_ratio"`
	IsIdentity         bool              `json:"-"`
}

type httpConfig struct {
	HTTPPort int                     `json:"http_port"`
	Servers  map[string]serverConfig `json:"servers"`
}

type serverConfig struct {
	Listen    []string                   `json:"listen"`
	AutoHTTPS *caddyhttp.AutoHTTPSConfig `json:"automatic_https"`
	Routes    []struct {
		Match []struct {
			Host []string `json:"host"`
		} `json:"match"`
	} `json:"routes"`
}

// ReadConfig reads a configuration in Caddy's JSON.
func ReadConfig(cfgJSON []byte) (Config, error) {
	var c Config
	if err := json.Unmarshal(cfgJSON, &c); err != nil {
		return Config{}, fmt.Errorf("reading the configuration: %w; with a file in another format use --adapter", err)
	}
	c.clients = clientNames(cfgJSON)
	return c, nil
}

// Offline is the plan of a configuration that no server runs. ours makes the issuers of a policy
// that are ours.
func Offline[I any](c Config, ours func(PolicyConfig) ([]I, error)) (Plan[I], error) {
	p := Plan[I]{forced: make(map[string]bool)}
	for _, policy := range c.Apps.TLS.Automation.Policies {
		issuers, err := ours(policy)
		if err != nil {
			return p, err
		}
		p.policies = append(p.policies, Policy[I]{Subjects: asciiAll(Replace(policy.Subjects)), Issuers: issuers})
	}
	identity := PolicyConfig{Subjects: c.Admin.Identity.Identifiers, Issuers: c.Admin.Identity.Issuers, IsIdentity: true}
	issuers, err := ours(identity)
	if err != nil {
		return p, err
	}
	p.identity = Policy[I]{Subjects: Replace(identity.Subjects), Issuers: issuers}
	var automate []string
	_ = json.Unmarshal(c.Apps.TLS.Certificates["automate"], &automate) // Caddy reports what is wrong with it
	for _, n := range Replace(automate) {
		p.names, p.forced[n] = append(p.names, n), true
	}
	loaded := loadedFrom(c.Apps.TLS.Certificates)
	for _, ech := range c.Apps.TLS.ECH.Configs {
		if n := ascii(strings.TrimSpace(ech.PublicName)); n != "" && !loaded(n) {
			p.names, p.forced[n] = append(p.names, n), true
		}
	}
	p.names = append(p.names, c.clients...)
	return p.site(c.Apps.HTTP.hosts(loaded)).indexed(), nil
}

// hosts are the sites' names for which Caddy would manage certificates.
func (h httpConfig) hosts(loaded func(string) bool) []string {
	app := &caddyhttp.App{HTTPPort: h.HTTPPort}
	repl := caddy.NewReplacer()
	var all []string
	for _, name := range slices.Sorted(maps.Keys(h.Servers)) {
		server := h.Servers[name]
		if HasNoCertificates(app, &caddyhttp.Server{Listen: server.Listen, AutoHTTPS: server.AutoHTTPS}) {
			continue
		}
		for _, route := range server.Routes {
			for _, match := range route.Match {
				all = append(all, qualifying(asciiAll(match.Host), server.AutoHTTPS, loaded, repl)...)
			}
		}
	}
	return all
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
