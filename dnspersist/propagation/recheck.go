package propagation

import (
	"context"
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/miekg/dns"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation/internal/zones"
)

// A poll of a name that was absent costs one question: one server is asked what it was asked before,
// in the zone and at the address that the last look has found, however old that is. As long as the
// answer is "no", nothing depends on it. The way to the record is found anew when the record
// appears, when a server that was responsible no longer is, and every half hour.
const (
	// anewAfter is how long what a look has found is used; the next poll is up to MaxInterval later.
	anewAfter = 24 * time.Minute
	// anewSpread is the part of it that is taken off, more or less of it for each name, so that names
	// that began together do not ask resolvers together.
	anewSpread = 0.1
	// anewPolls is for how many polls at least it is used where they are late, since so many names wait: to
	// find it takes some ten questions, and they would leave little for polls.
	anewPolls = 6
	// anewShared is how old what another name has found of a zone may be for it to count as new, and
	// how long a server that changes its mind again is not believed to have moved again.
	anewShared = 5 * time.Minute
)

// isOutdated reports whether the way to w's record has to be found anew.
func (w *watch) isOutdated(now time.Time) bool {
	_, part := math.Modf(float64(w.offset) * math.Phi) // evenly spread
	age := now.Sub(w.found) - anewPolls*max(now.Sub(w.due), 0)
	return w.found.IsZero() || age >= time.Duration((1-anewSpread*part)*float64(anewAfter))
}

// recheck is what came of asking again.
type recheck int

const (
	recheckSame    recheck = iota // the answer is what it was, to the letter
	recheckNo                     // it is still "no", or none came, and something about it is new, such as the serial
	recheckUnknown                // nobody was to be asked, or it takes an ordinary poll to understand the answer
	recheckMoved                  // the server is not responsible any more, or has another CNAME
	recheckYes                    // the record is there
)

// isRecheckable reports whether polls may ask again what last shows: that the record is absent, all of it kept.
func (c *Checker) isRecheckable(last Report) bool {
	return last.Status == StatusAbsent && last.Mode == ModeAuthoritative && c.cfg.Mode == ModeAuthoritative && last.MoreValues == 0
}

// recheck asks for each name on the way, which is one unless there are CNAMEs, the nth of the servers
// that have answered for it in last. The round has the answers that are new.
func (c *Checker) recheck(ctx context.Context, t Target, last Report, nth int) (Round, recheck) {
	r := Round{Name: last.Name, Zone: last.Zone, Mode: last.Mode, Partial: true, weigh: t.Weigh, cost: 1}
	w := walk{c: c, accept: t.Accept}
	all := recheckSame
	for i := 0; i < len(last.Servers) && all < recheckUnknown; {
		end := i + 1
		for end < len(last.Servers) && last.Servers[end].Zone == last.Servers[i].Zone && last.Servers[end].Name == last.Servers[i].Name {
			end++
		}
		s, addr := c.inTurn(last.Servers[i:end], nth)
		if s == nil {
			return r, recheckUnknown
		}
		o := w.askOne(ctx, &zones.Zone{Name: dns.Fqdn(s.Zone)}, dns.Fqdn(s.Name), zones.Server{Host: s.Host, Addr: addr, Listed: s.Listed})
		o.Zone, o.Name, o.Host, o.Listed, o.FromWildcard = s.Zone, s.Name, s.Host, s.Listed, s.FromWildcard
		one := compared(*s, o)
		if one == recheckNo {
			r.Servers = append(r.Servers, o.ServerReport)
		}
		all = max(all, one)
		i = end
	}
	r.When = time.Now()
	r.Port53Open = c.asker.Memory.Reaches()
	return r, all
}

// inTurn is the nth of those servers that have answered and were not silent since, nil if there is none.
func (c *Checker) inTurn(servers []ServerReport, nth int) (*ServerReport, netip.Addr) {
	for i := range servers {
		s := &servers[(nth+i)%len(servers)]
		if !s.Verdict.isAnswer() || c.asker.Memory.IsSilent(s.Addr) {
			continue
		}
		if at, err := netip.ParseAddrPort(s.Addr); err == nil {
			return s, at.Addr()
		}
	}
	return nil, netip.Addr{}
}

// compared is what an answer means for somebody who has had the answer before.
func compared(before ServerReport, o outcome) recheck {
	switch {
	case o.Defect == CodeNotAsked:
		return recheckUnknown
	case o.Verdict == VerdictSilent:
		return recheckNo
	case o.Verdict == VerdictBroken || o.deeper != "" || o.Alias != before.Alias:
		return recheckMoved
	case o.Alias != "":
		return recheckSame
	case o.Verdict == VerdictYes:
		return recheckYes
	case !slices.Equal(o.Values, before.Values):
		return recheckUnknown // a wildcard's, perhaps
	case o.Serial != before.Serial || o.Rcode != before.Rcode || o.Defect != before.Defect || o.Reason != before.Reason:
		return recheckNo
	}
	return recheckSame
}

// ask asks what a poll has to ask. It reports whether nothing is new since the last round, and whether
// the way to the record was found anew.
func (j *job) ask(ctx context.Context) (r Round, isSame, isAnew bool) {
	c, last := j.checker, j.watch.gate.Report()
	isKnown := j.nth >= 0 && c.isRecheckable(last)
	switch {
	case isKnown && !j.anew:
		r, what := c.recheck(ctx, j.target, last, j.nth)
		switch {
		case what == recheckSame, what == recheckNo:
			return r, what == recheckSame, false
		case what == recheckYes, what == recheckMoved && j.mayMove:
			c.finder.Outdate(anewShared, zonesOn(last)...)
			return j.look(ctx), false, true
		}
	case isKnown:
		c.finder.Outdate(anewShared, zonesOn(last)...)
		r, w := c.walked(ctx, j.target, j.nth, nil)
		if r.Err == nil && !w.found(last) {
			r = j.look(ctx)
		}
		return r, false, true
	}
	r = c.round(ctx, j.target, j.nth, j.again)
	if r.Err == nil && !asked(r, j.again) {
		j.again = nil
		r = j.look(ctx)
	}
	return r, false, !r.Partial
}

// look asks all servers in place of some.
func (j *job) look(ctx context.Context) Round {
	j.nth = -1
	return j.checker.Look(ctx, j.target)
}

// zonesOn are the zones on the way that a report shows.
func zonesOn(r Report) (names []string) {
	for _, s := range r.Servers {
		if z := dns.Fqdn(s.Zone); !slices.Contains(names, z) {
			names = append(names, z)
		}
	}
	return names
}

// found reports whether the walk has found the servers that last shows, and no others.
func (w *walk) found(last Report) bool {
	if w.last.zone == nil {
		return false
	}
	known := 0
	for _, s := range w.last.zone.Servers() {
		if s.Addr.IsValid() && !slices.ContainsFunc(last.Servers, func(b ServerReport) bool {
			return b.Name == last.Name && b.Host == zones.Display(s.Host) && b.Addr == zones.DNSAddr(s.Addr)
		}) {
			return false
		}
		known++
	}
	return known == len(last.Servers)+last.MoreServers
}
