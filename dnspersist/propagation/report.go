package propagation

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// maxNamed is how many servers a sentence names.
const maxNamed = 4

// Summary is the report in one line for a person: which servers have the
// record and which have not, and what is waited for.
func (r Report) Summary() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s", r.Name, r.Status)
	separator := ": "
	if where := r.where(); where != "" && r.Status != StatusBlocked {
		b.WriteString(separator + where)
		separator = "; "
	}
	if r.Reason != "" {
		b.WriteString(separator + r.Reason)
	}
	return b.String()
}

// where counts the hosts of every zone on the way that have what they must.
func (r Report) where() string {
	var parts []string
	for _, g := range groupServers(r.Servers) {
		what := "record"
		if slices.ContainsFunc(g.hosts, func(h host) bool { return h.report.Alias != "" && h.verdict == VerdictYes }) {
			what = "CNAME"
		}
		kind := "name servers of " + g.zone
		if r.Mode == ModeRecursive {
			kind = "resolvers"
		}
		parts = append(parts, fmt.Sprintf("%s on %d of %d %s", what, g.count(VerdictYes), len(g.hosts), kind))
	}
	if r.MoreServers > 0 {
		parts = append(parts, fmt.Sprintf("%d further addresses are not listed", r.MoreServers))
	}
	if len(r.Excused) > 0 {
		parts = append(parts, "left out: "+strings.Join(r.Excused, ", "))
	}
	return strings.Join(parts, "; ")
}

// explain returns why a name is not ready, and what to do.
func explain(rep Report, err error, groups []group, v view, waiting []string) string {
	switch rep.Status {
	case StatusReady:
		return ""
	case StatusConfirming:
		return "all servers that count agree; a second look follows"
	case StatusAbsent:
		return answersOf(groups, VerdictNo)
	case StatusBlocked:
		if err != nil {
			return err.Error()
		}
		if rep.Bogus != "" {
			return "the zone is signed, but its signatures do not validate (" + rep.Bogus + "): CAs refuse it; check the DS record and the signatures"
		}
		return explainBlocked(rep, groups)
	}

	var parts []string
	if v.no > 0 {
		parts = append(parts, "missing on "+answersOf(groups, VerdictNo)+"; the CA may ask any server, so all must have it (check zone transfers)")
	}
	if len(waiting) > 0 {
		until := ""
		if !rep.LookAgainAt.IsZero() {
			until = " (until " + rep.LookAgainAt.UTC().Format(time.RFC3339) + ")"
		}
		if rep.Mode == ModeRecursive {
			until = " (all resolvers must show the record; remove those that do not work from resolvers)"
		}
		parts = append(parts, "waiting"+until+" for "+answersOf(groups, VerdictBroken, VerdictSilent))
	} else if v.no == 0 && (v.few || v.none) {
		parts = append(parts, "fewer than half of the servers answer usefully: "+answersOf(groups, VerdictBroken, VerdictSilent)+"; check that port 53 is reachable from here over UDP and TCP")
	}
	return strings.Join(parts, "; ")
}

func explainBlocked(rep Report, groups []group) string {
	answered := answersOf(groups, VerdictBroken, VerdictSilent)
	if rep.Mode == ModeRecursive {
		return "no resolver answers usefully: " + answered + "; check or set resolvers"
	}
	if answered == "" {
		return "no name server was found; check the delegation, or set resolvers"
	}
	return "no name server of " + groups[len(groups)-1].zone + " answers usefully: " + answered +
		"; check the name servers, and that port 53 is reachable from here over UDP and TCP"
}

// answersOf lists the hosts that have one of verdicts with what they answer:
// "ns1.example.net (192.0.2.1:53), ns2.example.net (192.0.2.2:53): no TXT record, serial 7".
func answersOf(groups []group, verdicts ...Verdict) string {
	var texts []string // in the order of appearance
	hosts := make(map[string][]string)
	for _, g := range groups {
		for _, h := range g.hosts {
			if !slices.Contains(verdicts, h.verdict) {
				continue
			}
			text := h.answered()
			if hosts[text] == nil {
				texts = append(texts, text)
			}
			hosts[text] = append(hosts[text], h.shown())
		}
	}
	for i, text := range texts {
		names := hosts[text]
		if more := len(names) - maxNamed; more > 0 {
			names = append(names[:maxNamed], fmt.Sprintf("%d more", more))
		}
		texts[i] = strings.Join(names, ", ") + ": " + text
	}
	if more := len(texts) - maxNamed; more > 0 {
		texts = append(texts[:maxNamed], fmt.Sprintf("%d other failures", more))
	}
	return strings.Join(texts, "; ")
}

// shown is the host with the address that decided.
func (h host) shown() string {
	if h.report.Addr == "" || h.report.Addr == h.key.host {
		return h.key.host
	}
	return h.key.host + " (" + h.report.Addr + ")"
}

// answered is what the host answered.
func (h host) answered() string {
	if h.report.Serial != 0 {
		return fmt.Sprintf("%s, serial %d", h.report.Reason, h.report.Serial)
	}
	return h.report.Reason
}
