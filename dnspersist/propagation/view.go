package propagation

import "slices"

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
	var v view
	for _, g := range groups {
		yes := g.count(VerdictYes)
		v.no += g.count(VerdictNo)
		v.none = v.none || yes == 0
		v.few = v.few || 2*yes < len(g.hosts)
	}
	v.found = slices.ContainsFunc(servers, func(s ServerReport) bool {
		return s.Verdict == VerdictYes && s.Alias == ""
	})
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
