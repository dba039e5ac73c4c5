package propagation

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation/internal/ask"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation/internal/zones"
)

// Checker asks for records. It is safe for concurrent use, holds nothing that
// must be released, and shares what it learns about zones with all other
// Checkers of the process that use the same exchanger and resolvers.
type Checker struct {
	cfg    Config
	asker  ask.Asker
	finder *zones.Finder
	logger *zap.Logger
}

// NewChecker returns a Checker. What is wrong with cfg shows in every round.
func NewChecker(cfg Config) *Checker {
	cfg.Mode = cmp.Or(cfg.Mode, ModeAuthoritative)
	if cfg.Exchanger == nil {
		cfg.Exchanger = NetExchanger{}
	}
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	a := ask.NewAsker(cfg.Exchanger)
	a.Asked = cfg.Asked
	finder := zones.NewFinder(a, cfg.Resolvers, zones.Fence{Open: cfg.AllowPrivate, Private: cfg.PrivateNetworks})
	return &Checker{cfg: cfg, asker: a, finder: finder, logger: cfg.Logger}
}

// NewGate returns a Gate with the Checker's grace and settle time.
func (c *Checker) NewGate() *Gate { return NewGate(c.cfg.Grace, c.cfg.Settle) }

// Look asks all servers at once: every authoritative address of the zone and
// of all zones that a chain of CNAMEs leads to, or every resolver. It takes
// as long as the slowest of them, some seconds where one is silent. Like every round it has a
// budget, of questions, zone cuts, aliases, hosts and time: what runs out is in Round.Err.
func (c *Checker) Look(ctx context.Context, t Target) Round { return c.round(ctx, t, -1, nil) }

// round asks only the given addresses of the zone, those that lacked the record. If there are none,
// it asks the nth server, a cheap way to see that nothing has changed; all if nth is negative.
func (c *Checker) round(ctx context.Context, t Target, nth int, addrs []string) Round {
	r, _ := c.walked(ctx, t, nth, addrs)
	return r
}

// walked is round, with the way it took.
func (c *Checker) walked(ctx context.Context, t Target, nth int, addrs []string) (Round, *walk) {
	asker := ctx
	ctx, spent, cancel := ask.Begin(ctx)
	defer cancel()
	if len(addrs) > 0 {
		nth = 0
	}
	w := &walk{c: c, nth: nth, only: addrs, accept: t.Accept}
	name := dns.CanonicalName(t.Name)
	r := Round{Name: zones.Display(name), Mode: c.cfg.Mode, Partial: nth >= 0, weigh: t.Weigh}
	if c.cfg.Mode == ModeRecursive {
		r.Err = w.recursive(ctx, name)
		r.Bogus = w.bogus
	} else {
		host := t.host()
		var zone string
		zone, r.Err = w.authoritative(ctx, name, host)
		r.Zone = zones.Display(zone)
		if !r.Partial && r.Err == nil && w.signed && complete(w.reports) {
			r.Bogus = c.bogus(ctx, name)
		}
		if !r.Partial {
			r.Wildcard = w.wildcard()
			if w.mayShadow(r.Wildcard) && ctx.Err() == nil {
				r.Shadows = w.c.finder.Remember(w.last.name+" shadows", w.last.zone, func() (string, bool) {
					return w.shadows(ctx, t.host()), ctx.Err() == nil
				})
			}
		}
	}
	unasked := slices.ContainsFunc(w.reports, func(s ServerReport) bool { return s.Defect == CodeNotAsked })
	switch { // Nothing is known of them, so the round proves nothing.
	case asker.Err() != nil && (unasked || errors.Is(r.Err, asker.Err())):
		r.Err = ask.Coded(CodeNotAsked, fmt.Errorf("not all servers were asked before the time was up (%w); allow more time", asker.Err()))
	case spent.Why(ctx) != "" && (unasked || r.Err == nil || errors.Is(r.Err, ask.ErrOverBudget) || errors.Is(r.Err, context.DeadlineExceeded)):
		r.Err = ask.Coded(CodeLookBudget, fmt.Errorf(
			"the look ended before all servers were asked, for %s: too many zone cuts, name servers or CNAMEs, or too slow ones, are on the way to %s, and the CA's resolver may give up as well; use fewer",
			spent.Why(ctx), r.Name))
	case r.Err == nil && unasked:
		r.Err = ask.Coded(CodeNotAsked, errors.New("not all servers were asked in time, as too much is asked at present; the next look follows"))
	}
	taken := spent.Usage()
	r.Servers, r.Dropped, r.Questions = w.reports, w.dropped, taken.Questions
	r.known = !r.Partial && t.areKnown(r.Servers)
	r.Port53Open = c.asker.Memory.Reaches()
	r.When = time.Now()
	r.cost = costOf(taken, r.askedAtName())
	if r.isPrompt() {
		r.cost = costOfQuestions(taken, r.askedAtName())
	}
	if check := c.logger.Check(zap.DebugLevel, "asked name servers for validation record"); check != nil {
		check.Write(zap.String("name", r.Name), zap.String("zone", r.Zone), zap.Bool("one_server", r.Partial),
			zap.Int("servers", len(r.Servers)), zap.Error(r.Err))
	}
	return r, w
}

// Check looks and has g observe it. Where the record is complete at the first
// look, the second one that g may ask for follows at once. If ctx ends, the look
// does not count, and the report is the last one; only where a deadline cuts the
// first look, that is in the report.
//
// In recursive mode nobody is asked before Report.NextLookNotBefore.
func (c *Checker) Check(ctx context.Context, t Target, g *Gate) Report {
	rep := g.Report()
	if rep.NextLookNotBefore.After(time.Now()) {
		return rep
	}
	for range 2 {
		r := c.Look(ctx, t)
		if last := g.Report(); errors.Is(ctx.Err(), context.Canceled) || (ctx.Err() != nil && !last.When.IsZero()) {
			return last
		}
		rep = g.Observe(r)
		if rep.Status != StatusConfirming || rep.LookAgainAt.After(time.Now()) {
			break
		}
	}
	return rep
}

// bogus asks a resolver that validates whether the record of a signed zone does: CAs refuse
// what does not. It is asked only when the authoritative servers have the
// record, so that it does not get to cache a "no". It returns the resolver's answer if it
// fails; nothing if the record validates, or if the resolver fails for another reason.
func (c *Checker) bogus(ctx context.Context, name string) string {
	for _, addr := range c.finder.Resolvers.Addrs {
		ans, err := c.asker.Send(ctx, addr, zones.ValidationQuery(name, dns.TypeTXT, false))
		if err != nil || ans.Rcode != dns.RcodeServerFailure {
			continue
		}
		if ans, bogus := c.finder.Resolvers.AfterServfail(ctx, addr, name, dns.TypeTXT, ans); bogus {
			return ask.RcodeText(ans.Msg)
		}
	}
	return ""
}

// complete reports whether servers show the record and none says no.
func complete(servers []ServerReport) bool {
	return hasRecord(servers) && !slices.ContainsFunc(servers, func(s ServerReport) bool { return s.Verdict == VerdictNo })
}

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
	if slices.ContainsFunc(r.Servers, func(s ServerReport) bool { return s.Name == zones.Display(name) && s.Alias != "" }) {
		return []string{dns.TypeToString[dns.TypeCNAME]}, nil
	}
	for i, o := range w.last.outcomes {
		if w.last.name != name || !o.Verdict.isAnswer() {
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
			if slices.ContainsFunc(ans.Answer, func(rr dns.RR) bool { return rr.Header().Rrtype == qtype }) {
				has = append(has, dns.TypeToString[qtype])
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
//
// What was asked for since the given time, for whichever name, is not asked for again within its
// TTL. It has a budget as a look has.
func (c *Checker) CAA(ctx context.Context, name string, since time.Time) (records []*dns.CAA, at string, err error) {
	ctx, _, cancel := ask.Begin(ctx)
	defer cancel()
	for name = dns.CanonicalName(name); name != "."; name = zones.Parent(name) {
		records, err := c.finder.CAA(ctx, name, since)
		if err != nil {
			return nil, "", fmt.Errorf("looking for the CAA records of %s: %w", zones.Display(name), err)
		}
		if len(records) > 0 {
			return records, zones.Display(name), nil
		}
	}
	return nil, "", nil
}
