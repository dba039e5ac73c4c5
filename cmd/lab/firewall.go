package main

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
)

// firewall is the way to the name servers ("port 53 of ns1" is a port of this machine). When
// it is blocked, only the resolver can be reached.
type firewall struct {
	propagation.Exchanger
	resolver string
	blocked  *atomic.Bool
}

// Exchange implements propagation.Exchanger.
func (f *firewall) Exchange(ctx context.Context, network, addr string, query *dns.Msg) (*dns.Msg, error) {
	if !f.blocked.Load() || addr == f.resolver {
		return f.Exchanger.Exchange(ctx, network, addr, query)
	}
	timer := time.NewTimer(500 * time.Millisecond)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil, errors.New("timed out")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
