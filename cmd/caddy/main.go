// Command caddy is the standard Caddy with the dns_persist plugin built in.
package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/dnspersist/caddy-dnspersist"
	_ "github.com/dnspersist/caddy-dnspersist/internal/rfc2136"
)

func main() {
	caddycmd.Main()
}
