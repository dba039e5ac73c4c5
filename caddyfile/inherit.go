package caddyfile

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddytls"
	"github.com/caddyserver/certmagic"

	"github.com/dnspersist/caddy-dnspersist/dnspersist"
)

func newIssuer() *dnspersist.Issuer {
	return &dnspersist.Issuer{ACMEIssuer: new(caddytls.ACMEIssuer)}
}

// cloneGlobal copies the issuers of the global `cert_issuer` and reports at which place
// ours is (-1: nowhere). The option's own are shared by all sites that follow it,
// and the adapter writes a site's `bind` into them.
func cloneGlobal(h httpcaddyfile.Helper) (chain []certmagic.Issuer, at int, err error) {
	global, _ := h.Option("cert_issuer").([]certmagic.Issuer)
	at = -1
	for i, issuer := range global {
		clone, err := cloneIssuer(issuer)
		if err != nil {
			return nil, -1, fmt.Errorf("taking over the global cert_issuer: %w", err)
		}
		// a chain may have ours more than once, with different CAs: a site means the first
		if _, ours := clone.(*dnspersist.Issuer); ours && at < 0 {
			at = i
		}
		chain = append(chain, clone)
	}
	return chain, at, nil
}

// cloneIssuer copies what is configured.
func cloneIssuer(issuer certmagic.Issuer) (certmagic.Issuer, error) {
	raw, err := json.Marshal(issuer)
	if err != nil {
		return nil, err
	}
	clone := issuer.(caddy.Module).CaddyModule().New().(certmagic.Issuer)
	return clone, caddy.StrictUnmarshalJSON(raw, clone)
}

// isBare reports whether the directive is nothing but its name.
func isBare(own *dnspersist.Issuer) (bool, error) {
	raw, err := json.Marshal(own)
	return string(raw) == "{}", err
}

// checkInherited refuses what belongs to the global issuer's CA at another one: an
// account that it does not know, a name or a profile that it does not have, roots that
// its certificate does not lead to.
func checkInherited(h httpcaddyfile.Helper, own, global *dnspersist.Issuer) error {
	if own.CA == "" || own.CA == global.CA {
		return nil
	}
	var words []string
	for _, field := range []struct {
		word      string
		inherited bool
	}{
		{"account_url", global.AccountURL != "" && own.AccountURL == ""},
		{"account_uri", global.AccountURI != "" && own.AccountURI == ""},
		{"issuer_domain_name", global.IssuerDomainName != "" && own.IssuerDomainName == ""},
		{"eab", global.ExternalAccount != nil && own.ExternalAccount == nil},
		{"trusted_roots", len(global.TrustedRootsPEMFiles) > 0 && len(own.TrustedRootsPEMFiles) == 0},
		{"profile", global.Profile != "" && own.Profile == ""},
	} {
		if field.inherited {
			words = append(words, field.word)
		}
	}
	if len(words) == 0 {
		return nil
	}
	return h.Errf("the site names another CA (%s) than the global cert_issuer dns_persist, whose %s would be used there: write here what that CA needs, or use issuer dns_persist in a tls block, which inherits nothing",
		own.CA, strings.Join(words, ", "))
}
