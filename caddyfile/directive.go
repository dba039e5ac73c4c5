// Package caddyfile registers the Caddyfile directive dns_persist.
//
// The issuer's own syntax is read by dnspersist.Issuer.UnmarshalCaddyfile.
package caddyfile

import (
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
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

// siteAddresses returns the addresses of the site that the directive is in.
//
// Helper does not offer them, and only there can be seen that the directive would have
// no effect, for Caddy drops it without a trace. They are read (nothing is changed)
// from Helper's field by reflection. Where a Caddy keeps them elsewhere, or an address
// is not understood, there are none, and the checks that need them are left out.
func siteAddresses(h httpcaddyfile.Helper) []httpcaddyfile.Address {
	var addresses []httpcaddyfile.Address
	for _, key := range siteBlock(h).Keys {
		address, err := httpcaddyfile.ParseAddress(key.Text)
		if err != nil {
			return nil
		}
		addresses = append(addresses, address.Normalize())
	}
	return addresses
}

// hasInternal reports whether `tls` has Caddy's own CA issue for the site as well, which would be used
// side by side with ours.
func hasInternal(h httpcaddyfile.Helper) bool {
	return slices.ContainsFunc(siteBlock(h).Segments, func(words caddyfile.Segment) bool {
		at := slices.IndexFunc(words, func(word caddyfile.Token) bool { return word.Text == "internal" })
		return at > 0 && words.Directive() == "tls" && (at == 1 || words[at-1].Text == "issuer")
	})
}

// siteBlock is the site's block in the Caddyfile; empty where a Caddy keeps it elsewhere.
func siteBlock(h httpcaddyfile.Helper) caddyfile.ServerBlock {
	field := reflect.ValueOf(&h).Elem().FieldByName("parentBlock")
	if !field.IsValid() || field.Type() != reflect.TypeFor[caddyfile.ServerBlock]() {
		return caddyfile.ServerBlock{}
	}
	return *(*caddyfile.ServerBlock)(field.Addr().UnsafePointer())
}

// plainHTTP reports whether all addresses are served over HTTP without TLS, so that
// Caddy wants no certificate for them.
func plainHTTP(h httpcaddyfile.Helper, addresses []httpcaddyfile.Address) bool {
	port := strconv.Itoa(caddyhttp.DefaultHTTPPort)
	if configured, ok := h.Option("http_port").(int); ok {
		port = strconv.Itoa(configured)
	}
	return len(addresses) > 0 && !slices.ContainsFunc(addresses, func(a httpcaddyfile.Address) bool {
		return a.Scheme != "http" && a.Port != port
	})
}

// hostless reports whether the site answers for any name. Its certificates are those of
// the policy for all other names, which the global options make too.
func hostless(addresses []httpcaddyfile.Address) bool {
	return slices.ContainsFunc(addresses, func(a httpcaddyfile.Address) bool { return a.Host == "" })
}

// listed names addresses to a person.
func listed(addresses []httpcaddyfile.Address) string {
	names := make([]string, 0, len(addresses))
	for _, address := range addresses {
		names = append(names, address.Original)
	}
	return strings.Join(names, ", ")
}
