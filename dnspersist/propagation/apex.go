package propagation

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/miekg/dns"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation/internal/ask"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation/internal/zones"
)

// ConfirmZone asks the servers that have shown what is published whether the zone is theirs, by
// its SOA record. Where a zone ends is first known from a resolver, and a write into another one
// would go astray. If that is an error, it is not to be written to.
func (c *Checker) ConfirmZone(ctx context.Context, at Shown) error {
	zone := dns.CanonicalName(at.Zone)
	var err error
	c.finder.Remember(zone+" SOA", nil, func() (string, bool) {
		err = c.confirmZone(ctx, zone, at)
		return "confirmed", err == nil
	})
	return err
}

func (c *Checker) confirmZone(ctx context.Context, zone string, at Shown) error {
	var addrs []string
	for _, s := range at.Servers {
		if s.Zone == at.Zone && s.Addr != "" && !slices.Contains(addrs, s.Addr) {
			addrs = append(addrs, s.Addr)
		}
	}
	errs := make([]error, len(addrs))
	var wg sync.WaitGroup
	for i, addr := range addrs {
		wg.Go(func() { errs[i] = c.confirms(ctx, zone, addr) })
	}
	wg.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	for i, err := range errs {
		if err != nil {
			return fmt.Errorf("%s is not written to: by the resolvers it is a zone, but its server %s %w; check the delegation, or resolvers", at.Zone, addrs[i], err)
		}
	}
	if len(addrs) == 0 {
		return fmt.Errorf("%s is not written to: no server of it was asked", at.Zone)
	}
	return nil
}

// confirms returns what is wrong with the SOA record of the zone at one of its servers.
func (c *Checker) confirms(ctx context.Context, zone, addr string) error {
	ans, err := c.asker.Ask(ctx, addr, zone, dns.TypeSOA, false)
	switch {
	case err != nil:
		return fmt.Errorf("has not answered: %w", err)
	case slices.ContainsFunc(ans.Answer, func(rr dns.RR) bool { return owns(rr, zone, dns.TypeSOA) }):
		return nil
	}
	if soa := zones.SOAOf(ans.Ns, zone); soa != nil {
		return fmt.Errorf("has it in the zone %s", zones.Display(dns.CanonicalName(soa.Hdr.Name)))
	}
	return fmt.Errorf("has no SOA record of it (%s)", ask.RcodeText(ans.Msg))
}

func owns(rr dns.RR, name string, rrtype uint16) bool {
	return rr.Header().Rrtype == rrtype && dns.CanonicalName(rr.Header().Name) == name
}
