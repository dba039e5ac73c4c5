package dnspersist

import (
	"reflect"
	"slices"
	"sort"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddytls"
	"github.com/caddyserver/certmagic"
)

// plan is which names a configuration manages, and which of our issuers serve them.
type plan struct {
	policies []planned
	// names are those of the sites and of certificates.automate, as far as certificates are
	// managed for them.
	names []string
	// forced are managed although a wildcard covers them.
	forced map[string]bool
	// identity are the names of Caddy's admin endpoint, which has issuers of its own.
	identity planned
	index    *planIndex
}

// planned is an automation policy.
type planned struct {
	subjects []string
	// issuers are those of ours.
	issuers []*Issuer
}

// issuers returns all of ours, in their order.
func (p plan) issuers() []*Issuer {
	var all []*Issuer
	for _, policy := range p.policies {
		all = append(all, policy.issuers...)
	}
	return append(all, p.identity.issuers...)
}

// managed returns the names for which a certificate is managed by one of ours, sorted.
func (p plan) managed() []string {
	all := make(map[string]bool)
	for _, n := range p.names {
		all[n] = true
	}
	var names []string
	for n := range all {
		if policy, ok := p.policyFor(n); !ok || len(policy.issuers) == 0 {
			continue
		}
		// a managed wildcard covers it, and Caddy asks for no certificate of its own
		if _, rest, ok := strings.Cut(n, "."); ok && !strings.HasPrefix(n, "*.") && all["*."+rest] && !p.forced[n] {
			continue
		}
		names = append(names, n)
	}
	if len(p.identity.issuers) > 0 {
		names = append(names, p.identity.subjects...)
	}
	sort.Strings(names)
	return slices.Compact(names)
}

// livePlan is that of the loaded configuration.
func (a *App) livePlan() plan {
	p := plan{forced: make(map[string]bool)}
	tlsApp, err := a.ctx.AppIfConfigured("tls")
	if err != nil {
		return p.indexed()
	}
	tls := tlsApp.(*caddytls.TLS)
	if tls.Automation != nil {
		for _, policy := range tls.Automation.Policies {
			one := planned{subjects: policy.Subjects()}
			for _, i := range policy.Issuers {
				if iss, ok := i.(*Issuer); ok {
					one.issuers = append(one.issuers, iss)
				}
			}
			p.policies = append(p.policies, one)
		}
	}
	for _, n := range automated(tls) {
		p.names, p.forced[n] = append(p.names, n), true
	}
	if app, err := a.ctx.AppIfConfigured("http"); err == nil {
		p.names = append(p.names, certificateHosts(app.(*caddyhttp.App), loadedIn(tls))...)
	}
	return p.indexed()
}

// automated are the names of certificates.automate, which Caddy keeps to itself once they
// are loaded: a test fails when it moves them.
func automated(tls *caddytls.TLS) []string {
	field := reflect.ValueOf(tls).Elem().FieldByName("automateNames")
	if field.Kind() != reflect.Map || field.Type().Key().Kind() != reflect.String {
		return nil
	}
	var names []string
	for _, key := range field.MapKeys() {
		names = append(names, key.String())
	}
	return names
}

// loadedIn tells of which names the configuration loads certificates, which Caddy then does
// not manage. Its own question for that counts the managed ones as well, and the list of the
// loaded ones is another thing that it keeps to itself.
func loadedIn(tls *caddytls.TLS) func(name string) bool {
	field := reflect.ValueOf(tls).Elem().FieldByName("loaded")
	if field.Kind() != reflect.Map || field.Type().Key().Kind() != reflect.String || field.Len() == 0 {
		return func(string) bool { return false }
	}
	hashes := make(map[string]bool)
	for _, key := range field.MapKeys() {
		hashes[key.String()] = true
	}
	return func(name string) bool {
		return slices.ContainsFunc(caddytls.AllMatchingCertificates(name), func(c certmagic.Certificate) bool { return hashes[c.Hash()] })
	}
}

// certificateHosts are the sites' names for which Caddy manages certificates.
func certificateHosts(app *caddyhttp.App, loaded func(string) bool) []string {
	var hosts []string
	repl := caddy.NewReplacer()
	for _, server := range app.Servers {
		if !plainHTTP(app, server) {
			hosts = append(hosts, qualifying(routeHosts(server.Routes), server.AutoHTTPS, loaded, repl)...)
		}
	}
	return hosts
}

// qualifying are the hosts of a server that a certificate is managed for.
func qualifying(hosts []string, auto *caddyhttp.AutoHTTPSConfig, loaded func(string) bool, repl *caddy.Replacer) []string {
	if auto == nil {
		auto = new(caddyhttp.AutoHTTPSConfig)
	}
	var all []string
	for _, h := range hosts {
		h = repl.ReplaceAll(h, "")
		if certmagic.SubjectQualifiesForCert(h) && !certmagic.SubjectIsIP(h) &&
			!slices.Contains(auto.Skip, h) && !slices.Contains(auto.SkipCerts, h) && (auto.IgnoreLoadedCerts || !loaded(h)) {
			all = append(all, h)
		}
	}
	return all
}
