package dnspersist

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
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
func (h httpConfig) hosts() []string {
	app := &caddyhttp.App{HTTPPort: h.HTTPPort}
	repl := caddy.NewReplacer()
	var all []string
	for _, name := range slices.Sorted(maps.Keys(h.Servers)) {
		server := h.Servers[name]
		if plainHTTP(app, &caddyhttp.Server{Listen: server.Listen, AutoHTTPS: server.AutoHTTPS}) {
			continue
		}
		var skip []string
		if server.AutoHTTPS != nil {
			skip = slices.Concat(server.AutoHTTPS.Skip, server.AutoHTTPS.SkipCerts)
		}
		for _, route := range server.Routes {
			for _, match := range route.Match {
				all = append(all, qualifying(asciiAll(match.Host), skip, repl)...)
			}
		}
	}
	return all
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
