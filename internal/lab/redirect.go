package lab

import (
	"context"

	"github.com/miekg/dns"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
)

// Redirected asks servers that stand elsewhere than the zones say: it is how another process
// reaches the lab's, and how real servers without port 53 are reached.
type Redirected struct {
	// Servers maps the addresses of the zones to real ones, both as "host:port".
	Servers map[string]string

	net propagation.NetExchanger
}

// Exchange implements propagation.Exchanger.
func (r Redirected) Exchange(ctx context.Context, network, addr string, query *dns.Msg) (*dns.Msg, error) {
	if real, ok := r.Servers[addr]; ok {
		addr = real
	}
	return r.net.Exchange(ctx, network, addr, query)
}
