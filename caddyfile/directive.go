// Package caddyfile registers the Caddyfile directive dns_persist.
//
// The issuer's own syntax is read by dnspersist.Issuer.UnmarshalCaddyfile.
package caddyfile

import (
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddytls"
	"github.com/caddyserver/certmagic"

	"github.com/dnspersist/caddy-dnspersist/dnspersist"
)

func init() {
	httpcaddyfile.RegisterDirective("dns_persist", parseDirective)
}

// parseDirective sets up the site's certificates with the issuer dns_persist. Syntax:
//
//	dns_persist [<directory_url>] {
//	    # the words of the issuer
//	}
//
// It starts from the global `cert_issuer dns_persist`, if there is one: the words of
// the block override its. The other issuers of that global chain stay, in their order.
func parseDirective(h httpcaddyfile.Helper) ([]httpcaddyfile.ConfigValue, error) {
	// what the site configures itself, without what it inherits
	site := newIssuer()
	if err := unmarshal(h, site); err != nil {
		return nil, err
	}
	h.Reset() // to the directive's own line, for errors about all of it
	h.Next()

	addresses := siteAddresses(h)
	if plainHTTP(h, addresses) {
		return nil, h.Errf("dns_persist in a site that is served over plain HTTP only (%s): no certificate is obtained for it; remove the directive, or http:// and the HTTP port from the address", listed(addresses))
	}

	if hasInternal(h) {
		return nil, h.Err("the site has both `dns_persist` and `tls internal`, which would be used side by side; remove one")
	}

	chain, at, err := cloneGlobal(h)
	if err != nil {
		return nil, h.WrapErr(err)
	}
	// as tls does: a site without a host name is served in plain HTTP without it
	values := []httpcaddyfile.ConfigValue{{Class: "tls.connection_policy", Value: new(caddytls.ConnectionPolicy)}}

	if len(chain) > 0 && hostless(addresses) {
		// Caddy has one policy for all names that no site names, the global one
		bare, err := isBare(site)
		if err != nil {
			return nil, h.WrapErr(err)
		}
		if at < 0 || !bare {
			return nil, h.Errf("dns_persist in a site without a host name (%s), beside a global cert_issuer: both are for all other names; write what is meant as cert_issuer dns_persist in the global options", listed(addresses))
		}
		return values, nil
	}

	own := site
	if at >= 0 {
		own = chain[at].(*dnspersist.Issuer)
		if err := checkInherited(h, site, own); err != nil {
			return nil, err
		}
		h.Reset()
		if err := unmarshal(h, own); err != nil {
			return nil, err
		}
	} else {
		chain = []certmagic.Issuer{own}
	}
	own.IgnoreBind()

	for _, issuer := range chain {
		values = append(values, httpcaddyfile.ConfigValue{Class: "tls.cert_issuer", Value: issuer})
	}
	return values, nil
}

// unmarshal reads the directive, with the global option dns in reach.
func unmarshal(h httpcaddyfile.Helper, iss *dnspersist.Issuer) error {
	if provider, ok := h.Option("dns").(caddy.Module); ok {
		iss.UseGlobalDNS(provider)
		defer iss.UseGlobalDNS(nil)
	}
	return iss.UnmarshalCaddyfile(h.Dispenser)
}

func init() {
	httpcaddyfile.RegisterGlobalOption("dns_persist", parseGlobal)
}

// parseGlobal sets up the app, whose options are for all issuers together. See
// dnspersist.App.UnmarshalCaddyfile for the syntax.
func parseGlobal(d *caddyfile.Dispenser, was any) (any, error) {
	if was != nil {
		d.Next()
		return nil, d.Err("the global option dns_persist is given twice: write its options in one block")
	}
	app := new(dnspersist.App)
	if err := app.UnmarshalCaddyfile(d); err != nil {
		return nil, err
	}
	return httpcaddyfile.App{Name: "dns_persist", Value: caddyconfig.JSON(app, nil)}, nil
}
