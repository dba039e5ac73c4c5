// Package caddydnspersist plugs the ACME challenge dns-persist-01 into Caddy.
//
// It holds nothing but imports: `xcaddy build --with` and Caddy's download page
// import a module's root package.
package caddydnspersist

import (
	_ "github.com/dnspersist/caddy-dnspersist/caddyfile"
	_ "github.com/dnspersist/caddy-dnspersist/dnspersist"
	_ "github.com/dnspersist/caddy-dnspersist/dnspersist/command"
)
