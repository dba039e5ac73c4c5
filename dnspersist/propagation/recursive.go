package propagation

import (
	"context"
	"sync"

	"github.com/miekg/dns"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation/internal/zones"
)

// recursive asks the resolvers.
func (w *walk) recursive(ctx context.Context, name string) error {
	r := w.c.finder.Resolvers
	if r.Err != nil {
		return r.Err
	}
	addrs := r.Addrs
	if w.nth >= 0 {
		n := w.nth % len(addrs)
		addrs = addrs[n : n+1]
	}
	w.reports = make([]ServerReport, len(addrs))
	var wg sync.WaitGroup
	for i, addr := range addrs {
		wg.Go(func() {
			o := w.askResolver(ctx, addr, name)
			o.Name, o.Host, o.Addr = zones.Display(name), addr, addr
			w.reports[i] = o.ServerReport
		})
	}
	wg.Wait()
	for _, s := range w.reports {
		if s.Defect == CodeBogus {
			w.bogus = s.Host + ": " + s.Rcode
		}
	}
	return nil
}

func (w *walk) askResolver(ctx context.Context, addr, name string) (o outcome) {
	defer w.guard(&o, addr)
	ans, err := w.c.asker.Ask(ctx, addr, name, dns.TypeTXT, true)
	if err != nil {
		return classifyFailure(ctx, err)
	}
	bogus := false
	if ans.Rcode == dns.RcodeServerFailure {
		ans, bogus = w.c.finder.Resolvers.AfterServfail(ctx, addr, name, dns.TypeTXT, ans)
	}
	o = classifyRecursive(name, ans.Msg, w.accept)
	o.Network, o.RTT = ans.Network, ans.RTT
	if o.Via != "" {
		o.FromWildcard = w.c.finder.Remember(name+" CNAME "+o.Via, nil, func() (string, bool) {
			probe := randomBelow(name)
			below, err := w.c.asker.Ask(ctx, addr, probe, dns.TypeTXT, true)
			if err != nil {
				return "", false
			}
			if classifyRecursive(probe, below.Msg, nil).Via != o.Via {
				return "", true
			}
			return "CNAME " + o.Via, true
		}) != ""
	}
	if bogus {
		o = o.broken(CodeBogus, o.Reason+", and has an answer if it need not validate")
	}
	return o
}
