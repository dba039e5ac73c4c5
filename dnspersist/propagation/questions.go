package propagation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/miekg/dns"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation/internal/ask"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation/internal/zones"
)

var errNoAnswer = errors.New("no authoritative server shows what is there")

// Answers asks one authoritative server which of the types it answers with at the target's name: one
// question each, beside a look. What a wildcard makes up is an answer, for a host may live on it; and
// so is a CNAME, which is there for all types.
func (c *Checker) Answers(ctx context.Context, t Target, types ...uint16) ([]string, error) {
	r, w := c.walked(ctx, t, -1, nil)
	name := dns.CanonicalName(t.Name)
	if r.Err != nil {
		return nil, r.Err
	}
	for _, s := range r.Servers {
		if s.Name == zones.Display(name) && s.Alias != "" {
			return []string{dns.TypeToString[dns.TypeCNAME]}, nil
		}
	}
	for i, o := range w.last.outcomes {
		if w.last.name != name || o.Verdict != VerdictYes && o.Verdict != VerdictNo {
			continue
		}
		var has []string
		for _, qtype := range types {
			ans, err := c.asker.Ask(ctx, zones.DNSAddr(w.last.asked[i].Addr), name, qtype, false)
			if err == nil && ans.Rcode != dns.RcodeSuccess && ans.Rcode != dns.RcodeNameError {
				err = fmt.Errorf("the answer is %s", dns.RcodeToString[ans.Rcode])
			}
			if err != nil {
				return nil, fmt.Errorf("asking %s for %s %s: %w", o.Host, zones.Display(name), dns.TypeToString[qtype], err)
			}
			for _, rr := range ans.Answer {
				if rr.Header().Rrtype == qtype {
					has = append(has, dns.TypeToString[qtype])
					break
				}
			}
		}
		return has, nil
	}
	return nil, fmt.Errorf("%s: %w", zones.Display(name), errNoAnswer)
}

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

// CAA asks the resolvers for the CAA records that hold for a name: its own, or those of
// the closest name above it that has any (RFC 8659 section 3). at is where they are,
// without a final dot; it is empty if there are none up to the top-level domain. An
// error is that of the resolvers: a CA that meets it must refuse.
// It has a budget as a look has.
func (c *Checker) CAA(ctx context.Context, name string) (records []*dns.CAA, at string, err error) {
	ctx, _, cancel := ask.Begin(ctx)
	defer cancel()
	for name = dns.CanonicalName(name); name != "."; name = zones.Parent(name) {
		ans, _, err := c.finder.Resolvers.Query(ctx, name, dns.TypeCAA)
		if err != nil {
			return nil, "", fmt.Errorf("looking for the CAA records of %s: %w", zones.Display(name), err)
		}
		for _, rr := range ans.Answer {
			// behind a CNAME the owner is another name, and the records count
			if caa, ok := rr.(*dns.CAA); ok {
				records = append(records, caa)
			}
		}
		if len(records) > 0 {
			return records, zones.Display(name), nil
		}
	}
	return nil, "", nil
}
