package parking

import (
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
)

// Limits bound what domains of on-demand TLS cost: whoever opens a connection chooses them, as far as
// the permission (`ask`) lets them.
type Limits struct {
	// MaxWaiting is how many may wait, MaxWaitingPerDomain how many of one registered domain.
	MaxWaiting, MaxWaitingPerDomain int
	// ForgetAfter is how long one of which no record was ever seen is watched without a handshake.
	ForgetAfter time.Duration
}

// guest is what is known of a domain that waits and was asked for on demand.
type guest struct {
	domain string // the registered one
	// interest is when somebody last asked for it.
	interest time.Time
	// hasOwner is true once something was seen that only the domain's owner can set.
	hasOwner bool
}

// noteInterest notes that somebody asks for the domain now.
func (e *entry) noteInterest(now time.Time) {
	if e.guest != nil {
		e.guest.interest = now
	}
}

// sees takes from a report whether the owner of the domain has done anything.
func (e *entry) sees(report propagation.Report) {
	if e.guest == nil || e.guest.hasOwner {
		return
	}
	for _, s := range report.Servers {
		e.guest.hasOwner = e.guest.hasOwner || s.Verdict == propagation.VerdictYes
	}
}

// mayGo reports whether the watch may be given up: not that of a domain whose owner has done
// something, or that has a certificate to lose.
func (e *entry) mayGo() bool { return e.guest != nil && !e.guest.hasOwner && e.hold.NotAfter.IsZero() }

// forgetAt is when a domain is watched no longer that nobody asks for; zero for never.
func (e *entry) forgetAt() time.Time {
	o := e.newest()
	if o == nil || !e.mayGo() {
		return time.Time{}
	}
	return e.guest.interest.Add(o.Configuration().Limits.ForgetAfter)
}

// guests are the domains that wait and were asked for on demand, by registered domain.
type guests struct {
	count   int
	domains map[string]map[*entry]bool
}

func (g *guests) add(e *entry) {
	if g.domains == nil {
		g.domains = make(map[string]map[*entry]bool)
	}
	in := g.domains[e.guest.domain]
	if in == nil {
		in = make(map[*entry]bool)
		g.domains[e.guest.domain] = in
	}
	if !in[e] {
		in[e] = true
		g.count++
	}
}

func (g *guests) remove(e *entry) {
	if e.guest == nil || !g.domains[e.guest.domain][e] {
		return
	}
	g.count--
	delete(g.domains[e.guest.domain], e)
	if len(g.domains[e.guest.domain]) == 0 {
		delete(g.domains, e.guest.domain)
	}
}

// room reports whether another name of a domain may wait, and which one has to go for it, if any.
// A domain that is bounded makes room itself; else the one that has the most does.
func (g *guests) room(domain string, bounded bool, limits Limits, now time.Time) (leaves *entry, ok bool) {
	if bounded && len(g.domains[domain]) >= limits.MaxWaitingPerDomain {
		leaves = g.leastWanted(domain, now)
		return leaves, leaves != nil
	}
	if g.count < limits.MaxWaiting {
		return nil, true
	}
	most := 0
	for d, names := range g.domains {
		if len(names) > most {
			if least := g.leastWanted(d, now); least != nil {
				leaves, most = least, len(names)
			}
		}
	}
	return leaves, leaves != nil
}

// leastWanted is the name of a domain that nobody has asked for the longest, of those that may go.
func (g *guests) leastWanted(domain string, now time.Time) (least *entry) {
	for e := range g.domains[domain] {
		if e.mayGo() && !e.isBusy(now) && (least == nil || e.guest.interest.Before(least.guest.interest)) {
			least = e
		}
	}
	return least
}
