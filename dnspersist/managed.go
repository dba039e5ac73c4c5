package dnspersist

import (
	"context"
	"strings"
	"sync"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddytls"
	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

// managedNames is what a configuration manages with this plugin, by CA: worked out
// once, at first use, when all apps are provisioned.
type managedNames struct {
	mu sync.Mutex
	// wildcards maps a CA's directory URL to the names below which a wildcard is
	// managed.
	wildcards map[string]map[string]bool
	// stored says for which CAs the names seen before were read from storage.
	stored map[string]bool
}

// wildcardManaged reports whether one record at the validation name has to serve a
// wildcard as well. It is the acmepersist.Config.Wildcard of the issuer.
func (iss *Issuer) wildcardManaged(ctx context.Context, validationName string) bool {
	base := strings.TrimPrefix(validationName, record.Label+".")
	names := iss.rt.app.managedNames()
	names.mu.Lock()
	seen := names.stored[iss.CA]
	names.stored[iss.CA] = true
	names.mu.Unlock()
	if !seen {
		active, _ := iss.active()
		all, err := active.SeenIdentifiers(ctx)
		if err != nil {
			iss.rt.logger.Warn("names of earlier runs are not known; records are asked for without them", zap.Error(err))
		}
		for _, n := range all {
			names.add(iss.CA, n)
		}
	}
	names.mu.Lock()
	defer names.mu.Unlock()
	return names.wildcards[iss.CA][base]
}

// add notes a name that is managed with a CA.
func (m *managedNames) add(ca, name string) {
	normal, err := record.Normalize(name)
	if err != nil || !record.IsWildcard(normal) {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.wildcards[ca] == nil {
		m.wildcards[ca] = make(map[string]bool)
	}
	m.wildcards[ca][record.Base(normal)] = true
}

// managedNames works the names out of the loaded configuration: the subjects of the
// automation policies, and the host matchers of the sites that a policy without
// subjects serves.
func (a *App) managedNames() *managedNames {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.managed != nil {
		return a.managed
	}
	a.managed = &managedNames{wildcards: make(map[string]map[string]bool), stored: make(map[string]bool)}
	tlsApp, err := a.ctx.AppIfConfigured("tls")
	if err != nil {
		return a.managed
	}
	automation := tlsApp.(*caddytls.TLS).Automation
	if automation == nil {
		return a.managed
	}
	named := make(map[string]bool)
	for _, policy := range automation.Policies {
		for _, subject := range policy.Subjects() {
			named[subject] = true
			for _, ca := range ourCAs(policy) {
				a.managed.add(ca, subject)
			}
		}
	}
	for _, policy := range automation.Policies {
		if len(policy.Subjects()) > 0 {
			continue
		}
		for _, ca := range ourCAs(policy) {
			for _, host := range siteHosts(a.ctx) {
				if !named[host] {
					a.managed.add(ca, host)
				}
			}
		}
	}
	return a.managed
}

// ourCAs returns the CAs of a policy's issuers that are ours.
func ourCAs(policy *caddytls.AutomationPolicy) []string {
	var all []string
	for _, i := range policy.Issuers {
		if iss, ok := i.(*Issuer); ok {
			all = append(all, iss.CA)
		}
	}
	return all
}

// siteHosts returns the names of the HTTP app's sites.
func siteHosts(ctx caddy.Context) []string {
	app, err := ctx.AppIfConfigured("http")
	if err != nil {
		return nil
	}
	var hosts []string
	for _, server := range app.(*caddyhttp.App).Servers {
		for _, route := range server.Routes {
			for _, set := range route.MatcherSets {
				for _, m := range set {
					if match, ok := m.(*caddyhttp.MatchHost); ok {
						for _, h := range *match {
							if certmagic.SubjectQualifiesForCert(h) {
								hosts = append(hosts, h)
							}
						}
					}
				}
			}
		}
	}
	return hosts
}
