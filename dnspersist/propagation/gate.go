package propagation

import (
	"cmp"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation/internal/ask"
)

// minBadLooks is how often a host must have been seen broken or silent,
// beside the grace, before it is excused.
const minBadLooks = 2

// minCleanLooks is how many full looks in a row must show the record: anycast
// servers and those that flap pass one by luck.
const minCleanLooks = 2

// Pace of asking resolvers that hold a cached "no".
const (
	minNegativeWait = 5 * time.Second
	maxNegativeWait = 15 * time.Minute
)

// Gate decides when a CA can be asked. It observes rounds and reports how far the
// record is visible; it asks nobody and reads no clock, the time being that of the
// rounds. The record is ready when, for every zone on the way to the record,
//
//   - no address says no,
//   - at least one host says yes, and hosts that say yes are at least half,
//   - every other host has been broken or silent for the grace, in at least
//     two looks (never excused in recursive mode: all resolvers must show it),
//
// and all that held in two rounds: at once where the first look found it so,
// else for the settle time. One round is enough where the first look found a record
// that a CA has accepted before (Target.Known), for it has been there since. There is
// no majority and no time-out.
//
// A Gate belongs to one name and is safe for concurrent use.
type Gate struct {
	grace, settle time.Duration

	mu   sync.Mutex
	last Report
	bad  map[hostKey]badHost // hosts that are broken or silent now

	// streakSince is since when all looks in a row have shown the record
	// wherever servers answer usefully; zero if the last did not. appeared
	// is set if some look did not. clean counts the full looks in a row in
	// which moreover nobody's grace lasted.
	streakSince time.Time
	appeared    bool
	clean       int
}

// badHost is for how long a host has not answered usefully.
type badHost struct {
	since time.Time
	looks int
}

// NewGate returns a Gate; times that are not positive are the defaults.
func NewGate(grace, settle time.Duration) *Gate {
	grace, settle = cmp.Or(max(grace, 0), defaultGrace), cmp.Or(max(settle, 0), DefaultSettle)
	return &Gate{grace: grace, settle: settle}
}

// Report returns what the last Observe returned, shortened: a Gate keeps a few
// kilobytes, whatever servers send. Its When is zero before.
func (g *Gate) Report() Report {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.last
}

// Observe takes a round into account. Rounds must come in the order of their
// times. The report has all that the servers of the round have shown.
func (g *Gate) Observe(r Round) Report {
	g.mu.Lock()
	defer g.mu.Unlock()

	rep := g.report(r)
	groups := groupServers(rep.Servers)
	g.countBad(groups, r)

	v := viewOf(groups, rep.Servers)
	solid := r.Err == nil && rep.Bogus == "" && v.solid()
	switch {
	case rep.Problem == CodeLookBudget && v.no == 0:
		// it proves nothing, and speaks against nothing
	case !solid:
		g.streakSince, g.appeared = time.Time{}, true
	case !r.Partial && g.streakSince.IsZero():
		g.streakSince = r.When
	}
	switch {
	case !v.found && v.no > 0:
		rep.FirstYes = time.Time{}
	case v.found && rep.FirstYes.IsZero():
		rep.FirstYes = r.When
	}

	var waiting []string
	if solid {
		rep.Excused, waiting, rep.LookAgainAt = g.excuse(groups, r)
	}
	switch {
	case rep.Problem == CodeLookBudget && v.no == 0:
	case !solid || len(waiting) > 0:
		g.clean = 0
	case !r.Partial:
		g.clean++
	}
	g.decide(&rep, r, v, solid, waiting)
	rep.Reason = explain(rep, r.Err, groups, v, waiting)

	rep.NextLookNotBefore = notBefore(r)
	rep.Since = r.When
	if g.last.Status == rep.Status {
		rep.Since = g.last.Since
	}
	g.keep(rep, r)
	return rep
}

// unchanged notes that a round at a time has shown of the absent record what the last one has.
func (g *Gate) unchanged(when time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.last.When = later(g.last.When, when)
}

// report is what the round shows, and of the one before what it does not.
func (g *Gate) report(r Round) Report {
	rep := Report{
		Name: r.Name, Zone: cmp.Or(r.Zone, g.last.Zone), Mode: r.Mode, When: r.When, FirstYes: g.last.FirstYes,
		Problem: ask.CodeOf(r.Err), Bogus: r.Bogus, Dropped: r.Dropped, Port53Open: r.Port53Open, Wildcard: r.Wildcard, Shadows: r.Shadows,
		cost: r.cost,
	}
	if r.Partial {
		rep.Bogus, rep.Wildcard, rep.Shadows = g.last.Bogus, g.last.Wildcard, g.last.Shadows
	}
	if r.Partial || rep.Problem == CodeLookBudget {
		rep.MoreValues, rep.RestDigest, rep.MoreServers = g.last.MoreValues, g.last.RestDigest, g.last.MoreServers
	}
	rep.Servers = g.merge(r)
	rep.Values = valuesOf(rep.Servers)
	return rep
}

// keep keeps what is needed until the next round.
func (g *Gate) keep(rep Report, r Round) {
	known := len(rep.Servers)
	if r.Partial {
		known = max(known, len(g.last.Servers)+g.last.MoreServers)
	}
	last := rep.Shortened(r.weigh)
	if slices.EqualFunc(last.Servers, g.last.Servers, sameAnswer) && slices.Equal(last.Values, g.last.Values) {
		last.Servers, last.Values = g.last.Servers, g.last.Values // who keeps an earlier report has them already
	}
	g.last = last
	g.last.MoreServers = known - len(g.last.Servers)
	if len(g.bad) == 0 {
		g.bad = nil
		return
	}
	bad := make(map[hostKey]badHost)
	for _, s := range g.last.Servers {
		key := hostKey{s.Zone, s.Name, s.Host} // of the texts that are kept
		if b, ok := g.bad[key]; ok {
			bad[key] = b
		}
	}
	g.bad = bad
}

// sameAnswer reports whether two answers are the same.
func sameAnswer(a, b ServerReport) bool {
	a.RTT, a.TTL, a.NegativeTTL, a.BadSince, a.BadLooks = b.RTT, b.TTL, b.NegativeTTL, b.BadSince, b.BadLooks
	return reflect.DeepEqual(a, b)
}

// decide sets the status, and when to look again.
func (g *Gate) decide(rep *Report, r Round, v view, solid bool, waiting []string) {
	settled, needed := g.streakSince, minCleanLooks
	switch {
	case g.appeared:
		settled = settled.Add(g.settle)
	case r.known:
		needed = 1
	}
	switch {
	case r.Err != nil || rep.Bogus != "":
		rep.Status = StatusBlocked
	case !v.found && v.no > 0:
		rep.Status = StatusAbsent
	case !v.found:
		rep.Status = StatusBlocked
	case !solid || len(waiting) > 0:
		rep.Status = StatusPartial
	case g.clean >= needed && !r.When.Before(settled):
		rep.Status = StatusReady
	default:
		rep.Status = StatusConfirming
		if rep.LookAgainAt = settled; settled.Before(r.When) {
			rep.LookAgainAt = r.When
		}
	}
}

// merge returns the present state of all servers: those of a full look, or
// the known ones with the news of some of them.
func (g *Gate) merge(r Round) []ServerReport {
	previous := g.last.Servers
	news := slices.Clone(r.Servers)
	cut := ask.CodeOf(r.Err) == CodeLookBudget
	if cut {
		// what was not reached is as it was
		news = slices.DeleteFunc(news, func(s ServerReport) bool {
			return s.Defect == CodeNotAsked && slices.ContainsFunc(previous, func(p ServerReport) bool { return sameServer(p, s) })
		})
	}
	for i := range news {
		news[i].Since = r.When
		for _, p := range previous {
			if sameServer(p, news[i]) && p.Verdict == news[i].Verdict {
				news[i].Since = p.Since
			}
		}
	}
	if !r.Partial && !cut {
		return news
	}
	merged := slices.Clone(previous)
	for _, s := range news {
		i := slices.IndexFunc(merged, func(m ServerReport) bool { return sameServer(m, s) })
		if i < 0 {
			merged = append(merged, s)
		} else {
			merged[i] = s
		}
	}
	return merged
}

func sameServer(a, b ServerReport) bool {
	return a.Addr == b.Addr && a.Host == b.Host && a.Zone == b.Zone && a.Name == b.Name
}

// countBad keeps the times of hosts that do not answer usefully.
func (g *Gate) countBad(groups []group, r Round) {
	if r.Err != nil && len(r.Servers) == 0 {
		return // nobody was asked
	}
	bad := make(map[hostKey]badHost)
	for _, gr := range groups {
		for _, h := range gr.hosts {
			if h.verdict.isAnswer() || h.report.Defect == CodeNotAsked {
				continue
			}
			b, ok := g.bad[h.key]
			if !ok {
				b.since = r.When
			}
			if slices.ContainsFunc(r.Servers, func(s ServerReport) bool {
				return s.Host == h.key.host && s.Zone == h.key.zone && s.Defect != CodeNotAsked
			}) {
				b.looks++
			}
			// what was seen of it before this gate counts as well
			if since := h.report.BadSince; !since.IsZero() && since.Before(b.since) {
				b.since, b.looks = since, max(b.looks, h.report.BadLooks)
			}
			bad[h.key] = b
		}
	}
	g.bad = bad
}

// excuse sorts the hosts that do not answer usefully into those that are
// excused and those whose grace lasts, with the end of the longest.
func (g *Gate) excuse(groups []group, r Round) (excused, waiting []string, until time.Time) {
	for _, gr := range groups {
		for _, h := range gr.hosts {
			b, ok := g.bad[h.key]
			if !ok {
				continue
			}
			end := b.since.Add(g.grace)
			switch {
			case r.Mode == ModeRecursive:
				waiting = append(waiting, h.key.host)
			case b.looks >= minBadLooks && !r.When.Before(end):
				excused = append(excused, h.key.host)
			default:
				waiting = append(waiting, h.key.host)
				if until.Before(end) {
					until = end
				}
			}
		}
	}
	if !until.IsZero() && until.Before(r.When) {
		until = r.When
	}
	slices.Sort(excused)
	slices.Sort(waiting)
	return slices.Compact(excused), slices.Compact(waiting), until
}

// notBefore is until when the resolvers' caches cannot change their "no".
func notBefore(r Round) (t time.Time) {
	if r.Mode != ModeRecursive {
		return t
	}
	for _, s := range r.Servers {
		if s.Verdict != VerdictNo {
			continue
		}
		wait := min(max(time.Duration(s.NegativeTTL)*time.Second, minNegativeWait), maxNegativeWait)
		if end := r.When.Add(wait); end.After(t) {
			t = end
		}
	}
	return t
}

// hostKey identifies a host in its part: a host may serve several zones on
// the way to the record, and is judged in each.
type hostKey struct{ zone, name, host string }

// host is a name server judged over its addresses.
type host struct {
	key     hostKey
	verdict Verdict
	report  ServerReport // of the address that decided
}

// group is all hosts that were asked for one name of one zone.
type group struct {
	zone, name string
	hosts      []host
}

// severity orders verdicts by what decides for a host: a "no" of any of its
// addresses, for a CA may use that address; else a yes, so that a dead IPv6
// address of a host that answers over IPv4 costs nothing.
var severity = map[Verdict]int{VerdictNo: 3, VerdictYes: 2, VerdictBroken: 1, VerdictSilent: 0}

// groupServers sorts servers by zone and name, in the order of the chain, and
// judges hosts.
func groupServers(servers []ServerReport) []group {
	var groups []group
	for _, s := range servers {
		gi := slices.IndexFunc(groups, func(g group) bool { return g.zone == s.Zone && g.name == s.Name })
		if gi < 0 {
			gi = len(groups)
			groups = append(groups, group{zone: s.Zone, name: s.Name})
		}
		g := &groups[gi]
		hi := slices.IndexFunc(g.hosts, func(h host) bool { return h.key.host == s.Host })
		switch {
		case hi < 0:
			g.hosts = append(g.hosts, host{hostKey{s.Zone, s.Name, s.Host}, s.Verdict, s})
		case severity[s.Verdict] > severity[g.hosts[hi].verdict]:
			g.hosts[hi].verdict, g.hosts[hi].report = s.Verdict, s
		}
	}
	return groups
}

// count returns how many hosts have verdict v.
func (g group) count(v Verdict) (n int) {
	for _, h := range g.hosts {
		if h.verdict == v {
			n++
		}
	}
	return n
}

// view is what matters of all groups together.
type view struct {
	found bool // a server has the record itself, not only a CNAME
	no    int  // hosts that say no
	few   bool // a zone in which fewer than half of the hosts say yes
	none  bool // a zone in which no host says yes
}

func viewOf(groups []group, servers []ServerReport) view {
	v := view{found: hasRecord(servers)}
	for _, g := range groups {
		yes := g.count(VerdictYes)
		v.no += g.count(VerdictNo)
		v.none = v.none || yes == 0
		v.few = v.few || 2*yes < len(g.hosts)
	}
	return v
}

// solid: nothing speaks against the record but hosts that say nothing useful.
func (v view) solid() bool { return v.found && v.no == 0 && !v.few && !v.none }

// valuesOf is the union of the values that servers show, sorted.
func valuesOf(servers []ServerReport) []string {
	var values []string
	for _, s := range servers {
		values = append(values, s.Values...)
	}
	slices.Sort(values)
	return slices.Compact(values)
}
