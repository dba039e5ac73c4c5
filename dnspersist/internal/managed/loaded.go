package managed

import (
	"cmp"
	"encoding/json"
	"reflect"
	"slices"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddytls"
	"github.com/caddyserver/certmagic"
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
