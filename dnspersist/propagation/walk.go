package propagation

import (
	"context"
	"fmt"
	"math"
	"net/netip"
	"runtime/debug"
	"slices"
	"strings"
	"sync"

	"github.com/miekg/dns"
	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation/internal/ask"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation/internal/zones"
)

// Bounds of the way to a record, beside those of an account.
const (
	maxCuts    = 8 // zones on the way down from the first one that was found for a name
	maxAliases = 8 // CNAME records; common resolvers follow about as many
)

// walk is one round: from the validation name along delegations and CNAMEs.
type walk struct {
	c       *Checker
	nth     int      // the server to ask, all if negative
	only    []string // the addresses to ask, if there are any, instead of the nth server
	accept  acceptFunc
	reports []ServerReport

	dropped int
	signed  bool    // a zone on the way is
	madeNS  string  // the wildcard NS record that answers at the name, if one does
	bogus   string  // the answer of a resolver that validates
	last    answers // those for the validation name itself
}

// station is a name of a CNAME chain.
type station struct {
	name string
	host string   // from where its zone is found
	via  []string // the names before it
	made bool     // only a wildcard's CNAME leads to it
}

// authoritative asks the servers of name's zone, and where they have a CNAME
// those of the target's, and so on. It returns the zone of name.
func (w *walk) authoritative(ctx context.Context, name, host string) (string, error) {
	var (
		first             string
		firstErr, madeErr error
		chain             = []station{{name: name, host: host}}
	)
	fail := func(made bool, err error) {
		if made && madeErr == nil {
			madeErr = err
		}
		if !made && firstErr == nil {
			firstErr = err
		}
	}
	for i := 0; i < len(chain) && (i == 0 || ask.CutShort(ctx) == nil); i++ {
		st := chain[i]
		zone, targets, err := w.station(ctx, st)
		if i == 0 {
			first = zone
		}
		if err != nil {
			fail(st.made, err)
			continue
		}
		via := append(slices.Clone(st.via), st.name)
		for _, target := range targets {
			made := st.made || w.isMade(st.name, target)
			known := slices.IndexFunc(chain, func(o station) bool { return o.name == target })
			switch {
			case slices.Contains(via, target):
				fail(made, ask.Coded(CodeAliasLoop, fmt.Errorf("CNAME loop: %s; remove the CNAME", arrows(append(via, target)))))
			case known >= 0:
				chain[known].made = chain[known].made && made
			case len(chain) > maxAliases:
				fail(made, ask.Coded(CodeAliasLoop, fmt.Errorf("more than %d CNAMEs: %s; shorten the chain", maxAliases, arrows(append(via, target)))))
			default: // the target may not exist yet either
				chain = append(chain, station{name: target, host: zones.HostAbove(target), via: via, made: made})
			}
		}
	}
	if w.judgeMade(chain) && firstErr == nil {
		firstErr = madeErr
	}
	return first, firstErr
}

func arrows(names []string) string {
	shown := make([]string, len(names))
	for i, n := range names {
		shown[i] = zones.Display(n)
	}
	return strings.Join(shown, " → ")
}

// station asks the servers of the zone that st.name is in, going down where
// answers show a zone below, and returns that zone and the targets of CNAMEs.
func (w *walk) station(ctx context.Context, st station) (zone string, targets []string, err error) {
	z, err := w.c.finder.Find(ctx, st.name, st.host)
	if err != nil {
		return "", nil, err
	}
	for range maxCuts + 1 {
		if z.Denied != "" && !w.c.cfg.AllowPrivate {
			// A CA starts from there. Resolvers may know a zone that the Internet
			// does not, for a CA that asks them too: then that is configured.
			return z.Name, nil, ask.Coded(CodeNotDelegated, fmt.Errorf(
				"%s: the zone above, %s, answers NXDOMAIN: the domain is not delegated; check its registration, or, if it is for a network of your own, set %s", zones.Display(z.Name), zones.Display(z.Denied), zones.OptionAllowPrivate))
		}
		w.dropped = max(w.dropped, z.Dropped())
		w.signed = w.signed || z.Signed
		a := w.askAll(ctx, z, st.name)
		below, err := w.zoneBelow(ctx, a)
		if err != nil {
			return z.Name, nil, err
		}
		if below == nil {
			return z.Name, w.arrive(ctx, st, a), nil
		}
		z = below
	}
	return z.Name, nil, ask.AccountOf(ctx).End(fmt.Sprintf("there are more than %d zone cuts above %s", maxCuts, zones.Display(st.name)))
}

// answers are what servers of one zone have answered for one name.
type answers struct {
	zone     *zones.Zone
	name     string
	asked    []zones.Server
	outcomes []outcome // in the order of asked
}

// zoneBelow returns the zone below that answers show, nil if the name is in the zone that was
// asked.
func (w *walk) zoneBelow(ctx context.Context, a answers) (*zones.Zone, error) {
	del, ok := delegationOf(a)
	if ok && w.madeCut(ctx, a, del) {
		return nil, nil
	}
	// a yes would not show the zone below
	if i := slices.IndexFunc(a.outcomes, func(o outcome) bool { return o.Verdict == VerdictYes }); !ok && w.nth < 0 && i >= 0 {
		del, ok = w.c.finder.HiddenCut(ctx, a.zone, a.name, a.asked[i].Addr)
	}
	if !ok {
		return nil, nil
	}
	del.Signed = a.zone.Signed
	below, err := w.c.finder.Delegated(ctx, del, a.name)
	switch {
	case err != nil && (len(del.Hosts) > 0 || ask.CutShort(ctx) != nil):
		return nil, err
	case err != nil:
		// Without a referral there was but an SOA record: load balancers
		// make them up, and the name is in the zone after all.
		return nil, nil
	}
	agreed := w.nth < 0
	for _, o := range a.outcomes {
		// A server that does not know of the cut: resolvers that ask
		// it on the way down get its "no".
		if o.Verdict == VerdictNo && o.deeper == "" {
			w.reports = append(w.reports, o.ServerReport)
		}
		agreed = agreed && (o.deeper != "" || o.Verdict == VerdictYes)
	}
	if agreed {
		w.c.finder.Adopt(below)
	}
	return below, nil
}

// arrive reports what the servers of the name's own zone have answered, and returns the targets of
// CNAMEs.
func (w *walk) arrive(ctx context.Context, st station, a answers) (targets []string) {
	w.noteWildcards(ctx, a)
	if len(st.via) == 0 {
		w.last = a
	}
	alive := false
	for _, o := range a.outcomes {
		w.reports = append(w.reports, o.ServerReport)
		// Of one that was not asked nothing is known.
		alive = alive || o.Verdict.isAnswer() || o.Defect == CodeNotAsked
		if o.Alias != "" && !slices.Contains(targets, o.Alias) {
			targets = append(targets, o.Alias)
		}
	}
	if !alive && w.nth < 0 && ask.CutShort(ctx) == nil {
		w.c.finder.Forget(a.zone)
	}
	return targets
}

// toAsk are the servers of z that this round asks.
func (w *walk) toAsk(z *zones.Zone) []zones.Server {
	servers := z.Servers()
	switch {
	case len(w.only) > 0:
		return slices.DeleteFunc(servers, func(s zones.Server) bool { return !slices.Contains(w.only, zones.DNSAddr(s.Addr)) })
	case w.nth < 0 || len(servers) == 0:
		return servers
	}
	// A poll of one server shows nothing at an address that was silent lately, or at a host without
	// any. On a machine without IPv6 every other poll would be in vain.
	answering := slices.DeleteFunc(slices.Clone(servers), func(s zones.Server) bool {
		return !s.Addr.IsValid() || w.c.asker.Memory.IsSilent(zones.DNSAddr(s.Addr))
	})
	if len(answering) > 0 {
		servers = answering
	}
	n := w.nth % len(servers)
	return servers[n : n+1]
}

// delegationOf combines the referrals in outcomes to the highest zone that
// any of them shows.
func delegationOf(a answers) (zones.Delegation, bool) {
	d := zones.Delegation{Glue: make(map[string][]netip.Addr), TTL: math.MaxUint32}
	for _, o := range a.outcomes {
		if o.deeper != "" && (d.Zone == "" || zones.IsBelow(d.Zone, o.deeper)) {
			d.Zone = o.deeper
		}
	}
	for i, o := range a.outcomes {
		if d.Zone == "" || o.deeper != d.Zone {
			continue
		}
		if !d.From.IsValid() || o.hosts == nil {
			d.From = a.asked[i].Addr
		}
		if o.hosts != nil {
			d.Hosts = append(d.Hosts, o.hosts...)
			d.TTL = min(d.TTL, o.nsTTL)
		}
		for h, addrs := range o.glue {
			d.Glue[h] = append(d.Glue[h], addrs...)
		}
	}
	return d, d.Zone != ""
}

// askAll asks servers of z in parallel.
func (w *walk) askAll(ctx context.Context, z *zones.Zone, name string) answers {
	a := answers{zone: z, name: name, asked: w.toAsk(z)}
	a.outcomes = make([]outcome, len(a.asked))
	var wg sync.WaitGroup
	for i, s := range a.asked {
		wg.Go(func() {
			o := w.askOne(ctx, z, name, s)
			o.Zone, o.Name, o.Host, o.Listed = zones.Display(z.Name), zones.Display(name), zones.Display(s.Host), s.Listed
			a.outcomes[i] = o
		})
	}
	wg.Wait()
	return a
}

func (w *walk) askOne(ctx context.Context, z *zones.Zone, name string, s zones.Server) (o outcome) {
	if !s.Addr.IsValid() {
		return o.broken(CodeNoAddress, s.Problem)
	}
	addr := zones.DNSAddr(s.Addr)
	defer w.guard(&o, addr)
	if w.c.finder.Fence.Stops(s.Addr) {
		o = o.broken(CodePrivate, "private address; a public CA cannot ask there, and we do only with "+zones.OptionAllowPrivate)
	} else if ans, err := w.c.asker.Ask(ctx, addr, name, dns.TypeTXT, false); err != nil {
		o = classifyFailure(ctx, err)
	} else {
		o = classify(z.Name, name, ans.Msg, w.accept)
		o.Network, o.RTT = ans.Network, ans.RTT
		if ans.NoEDNS && o.Defect == "" {
			o.Defect = CodeEDNSBroken
		}
	}
	o.Addr = addr
	if ctx.Err() == nil && o.deeper == "" && o.Defect != CodeNotAsked { // who refers to a zone below has answered
		switch memory := w.c.asker.Memory; o.Verdict {
		case VerdictSilent:
			o.BadSince, o.BadLooks = memory.Silent(addr, z.Name)
		case VerdictBroken:
			o.BadSince, o.BadLooks = memory.Useless(addr, z.Name)
		default:
			memory.Useful(addr, z.Name)
		}
	}
	return o
}

// guard turns a panic, in a target's function or in our own, into a "no" of the server at
// addr, whose answer cannot be judged: each server is asked in a goroutine of its own, where
// a panic would end the process. Had it no verdict, it would be excused.
func (w *walk) guard(o *outcome, addr string) {
	p := recover()
	if p == nil {
		return
	}
	w.c.logger.Error("panic while judging the answer of a name server",
		zap.String("server", addr), zap.Any("panic", p), zap.ByteString("stack", debug.Stack()))
	*o = outcome{ServerReport: ServerReport{
		Addr: addr, Verdict: VerdictNo, Reason: "its answer could not be judged for an internal error; see the log, and report it",
	}}
}

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
