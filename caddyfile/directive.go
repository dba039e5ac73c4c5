// Package caddyfile registers the Caddyfile directive dns_persist.
//
// The issuer's own syntax is read by dnspersist.Issuer.UnmarshalCaddyfile.
package caddyfile

import (
	"bytes"
	"encoding/json"

	"github.com/caddyserver/caddy/v2"
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
	global, _ := h.Option("cert_issuer").([]certmagic.Issuer)

	// one global chain may name ours more than once, with different CAs: a site means
	// the first
	at := -1
	own := &dnspersist.Issuer{ACMEIssuer: new(caddytls.ACMEIssuer)}
	for i, issuer := range global {
		if ours, ok := issuer.(*dnspersist.Issuer); ok {
			clone, err := cloneIssuer(ours)
			if err != nil {
				return nil, h.WrapErr(err)
			}
			at, own = i, clone
			break
		}
	}
	if err := own.UnmarshalCaddyfile(h.Dispenser); err != nil {
		return nil, err
	}

	chain := []certmagic.Issuer{own}
	if at >= 0 {
		chain = append(append(append([]certmagic.Issuer{}, global[:at]...), own), global[at+1:]...)
	}
	own.Exclusive = !hasInternal(chain)

	values := make([]httpcaddyfile.ConfigValue, 0, len(chain)+1)
	for _, issuer := range chain {
		values = append(values, httpcaddyfile.ConfigValue{Class: "tls.cert_issuer", Value: issuer})
	}
	// as tls does: a site without a host name is served in plain HTTP without it
	return append(values, httpcaddyfile.ConfigValue{
		Class: "tls.connection_policy", Value: new(caddytls.ConnectionPolicy),
	}), nil
}

// cloneIssuer copies what is configured. The issuer of the global option is shared by
// all sites that follow it.
func cloneIssuer(iss *dnspersist.Issuer) (*dnspersist.Issuer, error) {
	raw, err := json.Marshal(iss)
	if err != nil {
		return nil, err
	}
	clone := &dnspersist.Issuer{ACMEIssuer: new(caddytls.ACMEIssuer)}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(clone); err != nil {
		return nil, err
	}
	return clone, nil
}

func hasInternal(chain []certmagic.Issuer) bool {
	for _, issuer := range chain {
		if module, ok := issuer.(caddy.Module); ok && module.CaddyModule().ID == "tls.issuance.internal" {
			return true
		}
	}
	return false
}
