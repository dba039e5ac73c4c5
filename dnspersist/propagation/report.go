package propagation

import (
	"cmp"
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

// AliasKind is what CNAMEs at a name mean for a record there.
type AliasKind string

const (
	// AliasNone: no server shows a CNAME.
	AliasNone AliasKind = ""
	// AliasSet: the owner has set one, all servers that answered show it, and so on to its end.
	// What is above a name, such as a DNAME, counts as set where no record can take its place.
	AliasSet AliasKind = "set"
	// AliasWildcard: a wildcard record answers for the name (RFC 4592). A record at exactly the
	// name takes its place, so that is where one is published.
	AliasWildcard AliasKind = "wildcard"
	// AliasNotAgreed: servers differ about it, so it is neither followed nor written past.
	AliasNotAgreed AliasKind = "not_agreed"
)

// Alias is what the CNAMEs at a name mean. It is worked out here alone, see [Report.Alias].
type Alias struct {
	Kind AliasKind
	// Name is the name in question. Names are in lower case without final dot.
	Name string
	// Targets are the names that the CNAMEs lead to, one after the other; of AliasWildcard what
	// the wildcard leads to, of AliasNotAgreed all that servers show where they differ.
	Targets []string
	// Loop is set if they lead nowhere.
	Loop bool
	// at is the name about which servers differ.
	at string
}

// AliasError is why it is not known what is published at a name: its servers differ about a CNAME,
// or it leads nowhere.
type AliasError struct{ Alias Alias }

func (e *AliasError) Error() string {
	a := e.Alias
	if a.Loop {
		return fmt.Sprintf("the CNAMEs at %s lead nowhere (%s); remove them", a.Name, strings.Join(append([]string{a.Name}, a.Targets...), " → "))
	}
	return fmt.Sprintf("the name servers of %s do not agree about it: some show an alias (CNAME) of %s, others do not; it is not followed before all show the same (check zone transfers)",
		a.at, strings.Join(a.Targets, " and of "))
}

// Place is the name at which a record for Name is published: where the CNAMEs of owners end, else
// the name itself.
func (a Alias) Place() (string, error) {
	switch {
	case a.Kind == AliasNotAgreed || a.Loop:
		return "", &AliasError{a}
	case a.Kind == AliasSet:
		return a.Targets[len(a.Targets)-1], nil
	}
	return a.Name, nil
}

// LeadsTo reports whether the name is an alias of target. A wildcard that leads exactly there is
// as good as a CNAME of the name's own.
func (a Alias) LeadsTo(target string) bool {
	return a.Kind != AliasNotAgreed && slices.Contains(a.Targets, target)
}

// Alias is what the CNAMEs at the report's name mean.
func (r Report) Alias() Alias { return aliasAt(r.Name, r.Servers) }

// AliasOf is what the CNAMEs at another name mean that was asked for on the way.
func (r Report) AliasOf(name string) Alias { return aliasAt(name, r.Servers) }

// Alias is that of a Report, for one round.
func (r Round) Alias() Alias { return aliasAt(r.Name, r.Servers) }

func aliasAt(name string, servers []ServerReport) Alias {
	a := Alias{Name: plainName(name)}
	for at := a.Name; ; {
		kind, targets := aliasLink(at, servers)
		switch {
		case kind == AliasNotAgreed:
			return Alias{Kind: kind, Name: a.Name, Targets: targets, at: at}
		case kind == AliasWildcard && a.Kind == AliasNone:
			return Alias{Kind: kind, Name: a.Name, Targets: targets}
		case kind != AliasSet: // an end, or a wildcard, the place of which a record takes
			return a
		}
		a.Kind = AliasSet
		seen := slices.Contains(a.Targets, targets[0]) || targets[0] == a.Name
		a.Targets = append(a.Targets, targets[0])
		if a.Loop = seen || len(a.Targets) > maxAliases; a.Loop {
			return a
		}
		at = targets[0]
	}
}

// aliasLink is what the servers that were asked for one name show there.
func aliasLink(name string, servers []ServerReport) (AliasKind, []string) {
	var set, made []string
	without := false
	for _, s := range servers {
		if plainName(s.Name) != name || s.Verdict == VerdictBroken || s.Verdict == VerdictSilent {
			continue
		}
		target := plainName(cmp.Or(s.Alias, s.Via))
		switch {
		case target == "":
			without = true
		case s.FromWildcard && !slices.Contains(made, target):
			made = append(made, target)
		case !s.FromWildcard && !slices.Contains(set, target):
			set = append(set, target)
		}
	}
	switch {
	case len(set) == 0 && len(made) == 0:
		return AliasNone, nil
	case len(set) == 0:
		return AliasWildcard, made
	case len(set) > 1 || len(made) > 0 || without:
		return AliasNotAgreed, append(set, made...)
	}
	return AliasSet, set
}

// plainName is a name without final dot in lower case.
func plainName(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

// Shown is what the servers of one name show there.
type Shown struct {
	// Name is the name, Zone its zone, empty in recursive mode.
	Name, Zone string
	// Servers are those that have answered.
	Servers []ServerReport
	// Values are all that any of them shows, sorted; TTL is theirs in seconds.
	Values []string
	TTL    uint32
}

// At is what the servers that were asked for a name show there. A wildcard's answer is none of
// the name's.
func (r Report) At(name string) Shown { return shownAt(name, r.Servers) }

// At is that of a Report, for one round.
func (r Round) At(name string) Shown { return shownAt(name, r.Servers) }

func shownAt(name string, servers []ServerReport) Shown {
	at := Shown{Name: plainName(name)}
	for _, s := range servers {
		switch {
		case s.Via != "" && plainName(s.Via) == at.Name: // a resolver has followed the CNAMEs
		case plainName(s.Name) != at.Name:
			continue
		case s.Via != "" || s.FromWildcard:
			s.Values, s.TTL = nil, 0
		}
		if at.Zone == "" {
			at.Zone = s.Zone
		}
		if !s.Verdict.isAnswer() {
			continue
		}
		at.Zone = s.Zone
		at.TTL = max(at.TTL, s.TTL)
		at.Servers = append(at.Servers, s)
	}
	at.Values = valuesOf(at.Servers)
	return at
}

// Published is what is published at the place of the name's record: at the end of an alias that
// is agreed, else at the name itself, whatever a wildcard answers. That is not always what a CA
// sees now, which follows a wildcard as well: see Values. An error is why it is not known.
func (r Report) Published() (Shown, error) {
	place, err := r.Alias().Place()
	if err != nil {
		return Shown{Name: r.Name, Zone: r.Zone}, err
	}
	at := r.At(place)
	if at.Zone == "" && place == plainName(r.Name) {
		at.Zone = r.Zone
	}
	if len(at.Servers) == 0 {
		return at, fmt.Errorf("no server shows what is published at %s: %s", place, r.Reason)
	}
	return at, nil
}
