package propagation

import (
	"context"
	"errors"
	"fmt"

	"github.com/miekg/dns"

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
