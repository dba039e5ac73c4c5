package dnspersist

import (
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// UseGlobalDNS says which provider the word dns without a name means while a Caddyfile is
// read: that of the global option dns, which is in reach of directives only. Nil is for none.
func (iss *Issuer) UseGlobalDNS(provider caddy.Module) {
	iss.globalDNS = nil
	if provider != nil {
		iss.globalDNS = caddyconfig.JSONModuleObject(provider, "name", provider.CaddyModule().ID.Name(), nil)
	}
}

// unmarshalProvider reads dns [<provider>] as acme does.
func (iss *Issuer) unmarshalProvider(d *caddyfile.Dispenser) error {
	if !d.NextArg() {
		if len(iss.globalDNS) == 0 {
			return d.Errf("dns names no provider: it reads dns <provider>; without a name it means the global option dns, which only the directive dns_persist in a site can reach, if it is set")
		}
		iss.dns().ProviderRaw = iss.globalDNS
		return nil
	}
	name := d.Val()
	if _, err := caddy.GetModule("dns.providers." + name); err != nil {
		return d.Errf("the DNS provider %s is not built in: `caddy list-modules` shows which are, and `xcaddy build --with` a module such as github.com/caddy-dns/%s adds one", name, name)
	}
	module, err := caddyfile.UnmarshalModule(d, "dns.providers."+name)
	if err != nil {
		return err
	}
	iss.dns().ProviderRaw = caddyconfig.JSONModuleObject(module, "name", name, nil)
	return nil
}
