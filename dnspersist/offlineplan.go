package dnspersist

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/certmagic"
	"golang.org/x/net/idna"
)

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

// hosts are the sites' names for which Caddy would manage certificates.
func (h httpConfig) hosts(loaded func(string) bool) []string {
	app := &caddyhttp.App{HTTPPort: h.HTTPPort}
	repl := caddy.NewReplacer()
	var all []string
	for _, name := range slices.Sorted(maps.Keys(h.Servers)) {
		server := h.Servers[name]
		if plainHTTP(app, &caddyhttp.Server{Listen: server.Listen, AutoHTTPS: server.AutoHTTPS}) {
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

// site adds the sites' names, and the policies that Caddy makes for those that no policy names:
// its own CA serves what no public one does, and the local Tailscale the names of its network.
func (p plan) site(hosts []string) plan {
	named := make(map[string]bool)
	for _, policy := range p.policies {
		for _, s := range policy.subjects {
			named[s] = true
		}
	}
	var internal, tailscale planned
	slices.Sort(hosts)
	for _, h := range slices.Compact(hosts) {
		switch {
		case named[h]:
		case strings.HasSuffix(strings.ToLower(h), ".ts.net"):
			tailscale.subjects = append(tailscale.subjects, h)
			continue
		case !certmagic.SubjectQualifiesForPublicCert(h):
			internal.subjects = append(internal.subjects, h)
		}
		p.names = append(p.names, h)
	}
	return p.before(internal).before(tailscale)
}

// before puts a policy where Caddy does: in front of the first that would serve one of its names
// as well, or that is more general.
func (p plan) before(policy planned) plan {
	if len(policy.subjects) == 0 {
		return p
	}
	at := slices.IndexFunc(p.policies, func(other planned) bool {
		return len(other.subjects) < len(policy.subjects) || slices.ContainsFunc(policy.subjects, func(subject string) bool {
			return slices.ContainsFunc(other.subjects, func(s string) bool { return certmagic.MatchWildcard(subject, s) })
		})
	})
	if at < 0 {
		at = len(p.policies)
	}
	p.policies = slices.Insert(p.policies, at, policy)
	return p
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

// automateOf reads the list of certificates.automate.
func automateOf(raw json.RawMessage) []string {
	var names []string
	if len(raw) == 0 || json.Unmarshal(raw, &names) != nil {
		return nil
	}
	return names
}

func replaceAll(list []string) []string {
	repl := caddy.NewReplacer()
	var all []string
	for _, s := range list {
		all = append(all, strings.TrimSpace(repl.ReplaceAll(s, "")))
	}
	return all
}

// asciiName is a name as Caddy compares it: its adapters and configurations may have it in
// Unicode, and Caddy converts it when it loads them.
func asciiName(name string) string {
	ascii, err := idna.ToASCII(name)
	if err != nil {
		return strings.ToLower(name) // Caddy refuses the configuration
	}
	return strings.ToLower(ascii)
}

func asciiAll(list []string) []string {
	all := make([]string, 0, len(list))
	for _, s := range list {
		all = append(all, asciiName(s))
	}
	return all
}
