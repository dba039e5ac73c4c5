package dnspersist

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddytls"
	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/managed"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

// checkPolicies refuses policies in which a site's directives have added up to
// something that nobody meant, and names what of a policy cannot work, so that `caddy validate`
// reports it. The Caddyfile adapter gives a plugin no way to see it.
func (iss *Issuer) checkPolicies(ctx caddy.Context) error {
	for _, policy := range policiesOf(ctx) {
		// Caddy has loaded and emptied the policies before the one that is being
		// provisioned now, which is ours; those behind it have their own turn
		if policy == nil || len(policy.IssuersRaw) == 0 {
			continue
		}
		if err := checkChain(policy.IssuersRaw); err != nil {
			return fmt.Errorf("%s: %w", policyNames(policy.SubjectsRaw), err)
		}
		iss.warnUnsupported(managed.Replace(policy.SubjectsRaw))
		return nil
	}
	return nil
}

// policiesOf are the policies of a configuration; none if it has no tls app.
func policiesOf(ctx caddy.Context) []*caddytls.AutomationPolicy {
	app, err := ctx.AppIfConfigured("tls")
	if err != nil || app.(*caddytls.TLS).Automation == nil {
		return nil
	}
	return app.(*caddytls.TLS).Automation.Policies
}

// checkChain checks the issuers of one policy. Those that Caddy has loaded already are
// gone from the raw configuration.
func checkChain(issuers []json.RawMessage) error {
	var ours int
	var internal, exclusive bool
	for _, raw := range issuers {
		var i struct {
			Module    string `json:"module"`
			Exclusive bool   `json:"exclusive"`
		}
		if json.Unmarshal(raw, &i) != nil {
			continue // Caddy reports what is wrong with it
		}
		switch i.Module {
		case "dns_persist":
			ours++
			exclusive = exclusive || i.Exclusive
		case "internal":
			internal = true
		}
	}
	switch {
	case ours > 1:
		return errors.New("there are two dns_persist issuers for the same site, remove one: the directive `dns_persist` is there twice, beside `issuer dns_persist` in a `tls` block, or under two global `cert_issuer dns_persist`")
	case internal && exclusive:
		return errors.New("the site has both `dns_persist` and `tls internal`, which would be used side by side; remove one")
	}
	return nil
}

func policyNames(subjects []string) string {
	if len(subjects) == 0 {
		return "TLS automation policy for all other names"
	}
	return "TLS automation policy for " + strings.Join(subjects, ", ")
}

// warnAtLoad logs what of the configuration cannot work, or is not what it seems.
func (a *App) warnAtLoad() {
	policies := policiesOf(a.ctx)
	warnReplaced(a.logger, policies)
	logChains(a.logger, policies)
	if inside := fromOurs(policies, func(rt *runtime) []string { return rt.insideResolvers }); len(inside) > 0 {
		a.logger.Warn("there are resolvers in this network, but name servers in it are not asked; if the CA is in this network as well, set allow_private_ns",
			zap.Strings("resolvers", inside))
	}
	a.warnSecretFiles(fromOurs(policies, func(rt *runtime) []string { return rt.secretFiles }))
	if app, err := a.ctx.AppIfConfigured("http"); err == nil {
		warnHosts(a.logger, app.(*caddyhttp.App), policies)
	}
}

const neverMessage = "this name can never get a certificate with dns_persist"

// warnUnsupported names the subjects that can never get a certificate by this challenge.
func (iss *Issuer) warnUnsupported(subjects []string) {
	for _, subject := range subjects {
		why := unsupportedName(subject)
		if why == "" {
			why = exactOnly(iss.Policy, subject)
		}
		if why == "" && !iss.isPrivateCA() && !certmagic.SubjectQualifiesForPublicCert(subject) && !strings.ContainsRune(subject, '{') {
			why = "no public CA issues for such a name; use `tls internal`, or a CA of your own with dir and trusted_roots"
		}
		if why != "" {
			iss.rt.logger.Warn(neverMessage, zap.String("name", subject), zap.String("reason", why))
		}
	}
}

// isPrivateCA reports whether the issuer's CA is one of this network.
func (iss *Issuer) isPrivateCA() bool {
	return iss.ACMEIssuer != nil && (len(iss.TrustedRootsPEMFiles) > 0 || iss.DNS != nil && iss.DNS.AllowPrivateNS)
}

// exactOnly is why the policy option keeps a name from being validated, empty if it does not.
func exactOnly(policy, name string) string {
	if policy == acmepersist.PolicyExact && record.IsWildcard(name) {
		return "policy exact never asks for policy=wildcard, which a wildcard name needs: remove the policy option"
	}
	return ""
}

// refuses is the error for a name that can never be validated.
func (iss *Issuer) refuses(name string) error {
	_, err := record.Normalize(name)
	if why := exactOnly(iss.Policy, name); err == nil && why != "" {
		err = errors.New(why)
	}
	if err == nil {
		return nil
	}
	return &acmepersist.UnsupportedNameError{Name: name, Err: err}
}

// unsupportedName is why a name can never be validated, empty if it can.
func unsupportedName(name string) string {
	_, isIP := netip.ParseAddr(strings.Trim(name, "[]"))
	switch {
	case isIP == nil:
		return "it is an IP address, the challenge validates DNS names only: use another issuer for it"
	case strings.HasSuffix(name, "."):
		return "it ends with a dot, and Caddy never manages certificates for such names: write it without the dot"
	case strings.Contains(strings.TrimPrefix(name, "*."), "*"):
		return "a certificate can have one wildcard only, as the leftmost label"
	case strings.ContainsRune(name, '{'):
		return "" // a placeholder
	}
	if _, err := record.Normalize(name); err != nil {
		return err.Error()
	}
	return ""
}

// warnReplaced finds the sites whose `tls <email>` or `tls { ca … }` has silently taken
// them out of a global `cert_issuer dns_persist`: the adapter makes acme issuers of it.
func warnReplaced(logger *zap.Logger, policies []*caddytls.AutomationPolicy) {
	if !slices.ContainsFunc(policies, func(p *caddytls.AutomationPolicy) bool {
		return len(p.Subjects()) == 0 && hasOurs(p)
	}) {
		return
	}
	for _, policy := range policies {
		subjects := policy.Subjects()
		if len(subjects) == 0 || len(policy.Issuers) == 0 || slices.ContainsFunc(issuerNames(policy), func(n string) bool { return n != "acme" }) {
			continue
		}
		logger.Warn("a site's `tls` options have replaced the global cert_issuer dns_persist by acme; to keep it write the directive dns_persist, or issuer dns_persist in the tls block, with the options inside",
			zap.Strings("subjects", subjects))
	}
}

// logChains logs policies in which a name gets its certificate from whichever issuer
// succeeds first.
func logChains(logger *zap.Logger, policies []*caddytls.AutomationPolicy) {
	for _, policy := range policies {
		if len(policy.Issuers) < 2 || !hasOurs(policy) {
			continue
		}
		logger.Info("dns_persist is in a chain of issuers: they are tried in this order, and no name waits for its record",
			zap.Strings("issuers", issuerNames(policy)), zap.Strings("subjects", policy.Subjects()))
	}
}

// fromOurs joins what the issuers of ours have, sorted, each once.
func fromOurs(policies []*caddytls.AutomationPolicy, of func(*runtime) []string) []string {
	var all []string
	for _, policy := range policies {
		for _, issuer := range policy.Issuers {
			if ours, ok := issuer.(*Issuer); ok {
				all = append(all, of(ours.rt)...)
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// warnHosts looks at the sites' names. Caddy leaves those with a final dot without a
// certificate, without a word; and those that no policy names fall to the policy
// without subjects, which may be ours.
func warnHosts(logger *zap.Logger, app *caddyhttp.App, policies []*caddytls.AutomationPolicy) {
	named, ours := make(map[string]bool), false
	var internal []string
	for _, policy := range policies {
		isInternal := slices.Equal(issuerNames(policy), []string{"internal"})
		for _, subject := range policy.Subjects() {
			named[subject] = true
			if isInternal && !certmagic.SubjectQualifiesForPublicCert(subject) && !certmagic.SubjectIsIP(subject) {
				internal = append(internal, subject)
			}
		}
		ours = ours || len(policy.Subjects()) == 0 && hasOurs(policy)
	}
	if ours && len(internal) > 0 {
		slices.Sort(internal)
		logger.Warn("Caddy serves names that no public CA knows with its internal CA, not with the global cert_issuer dns_persist; for a CA of your own write the directive dns_persist in their sites",
			zap.Strings("subjects", internal))
	}
	logged := make(map[string]bool)
	for name, server := range app.Servers {
		if managed.HasNoCertificates(app, server) {
			continue
		}
		for _, host := range managed.Hosts(server.Routes) {
			if logged[host] {
				continue
			}
			logged[host] = true
			if strings.HasSuffix(host, ".") {
				logger.Warn("Caddy never manages certificates for names with a final dot: write the site's address without it",
					zap.String("name", host), zap.String("server", name))
			} else if why := unsupportedName(host); ours && !named[host] && why != "" {
				logger.Warn(neverMessage, zap.String("name", host), zap.String("reason", why))
			}
		}
	}
}

func hasOurs(policy *caddytls.AutomationPolicy) bool {
	return slices.Contains(issuerNames(policy), "dns_persist")
}

// issuerNames returns the module names of a policy's issuers, in their order.
func issuerNames(policy *caddytls.AutomationPolicy) []string {
	names := make([]string, 0, len(policy.Issuers))
	for _, issuer := range policy.Issuers {
		name := fmt.Sprintf("%T", issuer)
		if module, ok := issuer.(caddy.Module); ok {
			name = module.CaddyModule().ID.Name()
		}
		names = append(names, name)
	}
	return names
}
