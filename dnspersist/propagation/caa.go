package propagation

import (
	"context"
	"fmt"

	"github.com/miekg/dns"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation/internal/ask"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation/internal/zones"
)

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
