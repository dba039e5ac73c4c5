package caddyfile

import (
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"

	"github.com/dnspersist/caddy-dnspersist/dnspersist"
)

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
