// Package rfc2136 has the DNS provider that cmd/caddy has built in.
package rfc2136

import (
	"errors"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/libdns/libdns"
	"github.com/libdns/rfc2136"
)

func init() {
	caddy.RegisterModule(Provider{})
}

// Provider writes zones by dynamic updates (RFC 2136) with a TSIG key, as BIND, Knot, PowerDNS
// and Windows DNS take them. It is part of this build of Caddy only: one that xcaddy makes
// takes github.com/caddy-dns/rfc2136, which has the same name and the same keys.
type Provider struct{ *rfc2136.Provider }

// CaddyModule returns the Caddy module information.
func (Provider) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "dns.providers.rfc2136",
		New: func() caddy.Module { return &Provider{new(rfc2136.Provider)} },
	}
}

// Provision expands placeholders.
func (p *Provider) Provision(caddy.Context) error {
	repl := caddy.NewReplacer()
	for _, field := range []*string{&p.Provider.KeyName, &p.Provider.KeyAlg, &p.Provider.Key, &p.Provider.Server} {
		*field = repl.ReplaceAll(*field, "")
	}
	return nil
}

// Validate wants all that an update needs.
func (p *Provider) Validate() error {
	if p.Provider.KeyName == "" || p.Provider.Key == "" || p.Provider.Server == "" {
		return errors.New("rfc2136 needs key_name, key and server")
	}
	return nil
}

// UnmarshalCaddyfile sets up the provider:
//
//	rfc2136 {
//	    key_name <name>
//	    key_alg  <algorithm>
//	    key      <base64>
//	    server   <host:port>
//	}
func (p *Provider) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	fields := map[string]*string{
		"key_name": &p.Provider.KeyName, "key_alg": &p.Provider.KeyAlg, "key": &p.Provider.Key, "server": &p.Provider.Server,
	}
	for d.Next() {
		if d.NextArg() {
			return d.ArgErr()
		}
		for nesting := d.Nesting(); d.NextBlock(nesting); {
			field, ok := fields[d.Val()]
			if !ok {
				return d.Errf("unrecognized subdirective %q: use key_name, key_alg, key, server", d.Val())
			}
			if !d.AllArgs(field) {
				return d.ArgErr()
			}
		}
	}
	return nil
}

// Interface guards
var (
	_ caddy.Provisioner     = (*Provider)(nil)
	_ caddy.Validator       = (*Provider)(nil)
	_ caddyfile.Unmarshaler = (*Provider)(nil)
	_ libdns.RecordAppender = (*Provider)(nil)
	_ libdns.RecordDeleter  = (*Provider)(nil)
)
