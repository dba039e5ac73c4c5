package propagation

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/foreign"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation/internal/zones"
)

// maxWildcardProbes is of how many servers it is found out whether a wildcard has made a CNAME;
// the others are taken to be like the first.
const maxWildcardProbes = 4

// noteWildcards marks the CNAMEs, and the texts that are not the record, which a wildcard record
// above the name has made (RFC 4592): then a name below, which nobody has, gets the same. A DNAME
// leads that elsewhere, and no record can take its place. It costs one question for each target or
// set of texts for as long as the zone is known, and a few where it is a wildcard's: the owner may
// be about to set one.
func (w *walk) noteWildcards(ctx context.Context, a answers) {
	type seen struct {
		made   bool // by the first server
		probes int
	}
	seenBefore := make(map[string]seen)
	for i, o := range a.outcomes {
		answer := answerOf(o)
		if answer == "" {
			continue
		}
		s := seenBefore[answer]
		if made := s.made; s.probes > 0 && !made || s.probes >= maxWildcardProbes {
			a.outcomes[i].FromWildcard = made
			continue
		}
		made := w.isFromWildcard(ctx, a, answer, zones.DNSAddr(a.asked[i].Addr))
		if s.probes++; s.probes == 1 {
			s.made = made
		}
		seenBefore[answer], a.outcomes[i].FromWildcard = s, made
	}
}

// answerOf is what identifies an answer that a wildcard may have made: the target of a
// CNAME, or the texts where they are not the record; empty for all else.
func answerOf(o outcome) string {
	switch {
	case o.Alias != "":
		return "CNAME " + o.Alias
	case o.Verdict != VerdictNo || len(o.Values) == 0:
		return ""
	}
	sum := sha256.New()
	for _, v := range valuesOf([]ServerReport{o.ServerReport}) {
		fmt.Fprintf(sum, "%d %s", len(v), v)
	}
	return "TXT " + hex.EncodeToString(sum.Sum(nil))
}

// isFromWildcard reports whether the server at addr has an answer from a wildcard.
func (w *walk) isFromWildcard(ctx context.Context, a answers, answer, addr string) bool {
	return w.c.finder.Remember(a.name+" "+answer+" "+addr, a.zone, func() (string, bool) {
		probe := randomBelow(a.name)
		ans, err := w.c.asker.Ask(ctx, addr, probe, dns.TypeTXT, false)
		if err != nil {
			return "", false
		}
		below := classify(a.zone.Name, probe, ans.Msg, w.accept)
		if answerOf(below) != answer {
			return "", true
		}
		return answer, true
	}) != ""
}

// madeCut reports whether the referral at the name itself comes from a wildcard NS record: the
// name below gets one of its own then. A record at the name takes the place of that, too; the
// referrals of such servers are turned into a "no".
func (w *walk) madeCut(ctx context.Context, a answers, del zones.Delegation) bool {
	if del.Zone != a.name || len(del.Hosts) == 0 {
		return false
	}
	made := w.c.finder.Remember(a.name+" NS", a.zone, func() (string, bool) {
		probe := randomBelow(a.name)
		ans, err := w.c.asker.Ask(ctx, zones.DNSAddr(del.From), probe, dns.TypeTXT, false)
		if err != nil {
			return "", false
		}
		if zones.CutOf(ans.Ns, probe) != probe {
			return "", true
		}
		return "NS " + zones.Display(del.Hosts[0]), true
	})
	if made == "" {
		return false
	}
	for i, o := range a.outcomes {
		if o.deeper == a.name {
			o.deeper, o.hosts, o.glue, o.Defect = "", nil, nil, ""
			o.Verdict, o.Reason = VerdictNo, "a wildcard record answers ("+made+")"
			a.outcomes[i] = o
		}
	}
	w.madeNS = made
	return true
}

// isMade reports whether only a wildcard leads from a name to a target.
func (w *walk) isMade(name, target string) bool {
	return !slices.ContainsFunc(w.reports, func(s ServerReport) bool {
		return s.Name == zones.Display(name) && s.Alias == target && !s.FromWildcard
	})
}

// judgeMade turns CNAMEs that wildcards have made into a "no" unless a record that will do is
// where they lead: a CA finds that. What else was found there is then left out. It reports
// whether it is kept.
func (w *walk) judgeMade(chain []station) (kept bool) {
	made := make(map[string]bool)
	for _, st := range chain {
		if st.made {
			made[zones.Display(st.name)] = true
		}
	}
	if slices.ContainsFunc(w.reports, func(s ServerReport) bool {
		return made[s.Name] && s.Verdict == VerdictYes && s.Alias == ""
	}) {
		return true
	}
	w.reports = slices.DeleteFunc(w.reports, func(s ServerReport) bool { return made[s.Name] })
	for i, s := range w.reports {
		if s.FromWildcard && s.Alias != "" {
			w.reports[i].Verdict = VerdictNo
			w.reports[i].Reason = "a wildcard record answers (CNAME to " + zones.Display(s.Alias) + ")"
		}
	}
	return false
}

// wildcard is what a wildcard record answers at the name, a type and its value, where that is
// not the record; empty if none does.
func (w *walk) wildcard() string {
	if w.madeNS != "" {
		return w.madeNS
	}
	i := slices.IndexFunc(w.last.outcomes, func(o outcome) bool { return o.FromWildcard })
	if i < 0 || slices.ContainsFunc(w.reports, func(s ServerReport) bool {
		return s.Verdict == VerdictYes && s.Alias == ""
	}) {
		return ""
	}
	if o := w.last.outcomes[i]; o.Alias == "" {
		return "TXT " + quotedValues(o.Values)
	}
	return "CNAME " + zones.Display(w.last.outcomes[i].Alias)
}

// maxQuoted is how many octets of one text from a server get into a message.
const maxQuoted = 100

// quotedValues shows the first few of values.
func quotedValues(values []string) string {
	var shown []string
	for _, v := range values[:min(len(values), maxNamed)] {
		shown = append(shown, foreign.Quote(v, maxQuoted))
	}
	if more := len(values) - maxNamed; more > 0 {
		shown = append(shown, fmt.Sprintf("%d more", more))
	}
	return strings.Join(shown, ", ")
}

// randomBelow is a name below name that nobody has a record at.
func randomBelow(name string) string {
	var b [8]byte
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	return "x" + hex.EncodeToString(b[:]) + "." + name
}
