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
	if i < 0 || hasRecord(w.reports) {
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

const (
	// maxShadowed is how many records of a wildcard's are listed, maxShadowedText how many octets
	// one of them may take, and maxShadowedTexts all: whoever has the zone chooses them.
	maxShadowed      = 8
	maxShadowedText  = 300
	maxShadowedTexts = 2 << 10
	// maxShadowedAbove is of how many names above the host it is found out whether they exist.
	maxShadowedAbove = 3
)

// shadows finds out whether what the host has comes from a wildcard record: a record below the
// host makes it exist, and no wildcard answers for what exists (RFC 4592, section 2.2.2). It does
// if a name beside it and one below it, which nobody has, get the same, and no wildcard of the
// host's own is why. It returns which records to add before; empty if the host loses nothing.
func (w *walk) shadows(ctx context.Context, host string) string {
	st := w.last
	i := slices.IndexFunc(st.outcomes, func(o outcome) bool { return o.Verdict.isAnswer() })
	if i < 0 || host == st.zone.Name || !dns.IsSubDomain(st.zone.Name, zones.Parent(host)) {
		return ""
	}
	addr := zones.DNSAddr(st.asked[i].Addr)
	ask := func(name string, qtype uint16) (rrs []dns.RR) {
		ans, err := w.c.asker.Ask(ctx, addr, name, qtype, false)
		if err != nil || ans.Rcode != dns.RcodeSuccess {
			return nil
		}
		// what is added of a CNAME's target is none of the name's
		return slices.DeleteFunc(slices.Clone(ans.Answer), func(rr dns.RR) bool { return dns.CanonicalName(rr.Header().Name) != name })
	}
	var kinds []string
	var lost, one []dns.RR // one is all there is of the first kind
	for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeMX, dns.TypeHTTPS} {
		has := ask(host, qtype)
		if len(has) == 0 || !sameContent(has, ask(randomBelow(zones.Parent(host)), qtype)) || !sameContent(has, ask(randomBelow(host), qtype)) {
			continue
		}
		// A wildcard exists itself, so nothing answers for what is below it; where nothing does
		// below one that nobody has either, the server does not show it.
		below, err := w.c.asker.Ask(ctx, addr, randomBelow("*."+host), qtype, false)
		if err == nil && below.Rcode == dns.RcodeNameError && sameContent(has, ask(randomBelow("*."+randomBelow(zones.Parent(host))), qtype)) {
			return ""
		}
		if len(kinds) == 0 {
			one = has
		}
		kinds, lost = append(kinds, dns.TypeToString[has[0].Header().Rrtype]), append(lost, has...)
		if zones.HasAlias(has) {
			break // it answers all types
		}
	}
	if len(kinds) == 0 {
		return ""
	}
	// Names between the host and the wildcard come to exist, too.
	owners, above := []string{host}, zones.Parent(host)
	for range maxShadowedAbove {
		qtype := one[0].Header().Rrtype
		if !zones.IsBelow(above, st.zone.Name) || !sameContent(ask(above, qtype), one) || !sameContent(ask(randomBelow(zones.Parent(above)), qtype), one) {
			break
		}
		owners, above = append(owners, above, "*."+above), zones.Parent(above)
	}
	return fmt.Sprintf("publishing %s makes %s exist: the wildcard *.%s stops answering %s for it; first add %s",
		zones.Display(st.name), zones.Display(host), zones.Display(above), strings.Join(kinds, " and "), listed(owners, lost))
}

// listed are the records of rrs for each of the owners, as lines of a zone file.
func listed(owners []string, rrs []dns.RR) string {
	var all []string
	length, more := 0, 0
	for _, owner := range owners {
		for i, rr := range rrs {
			data := strings.Join(strings.Fields(strings.TrimPrefix(rr.String(), rr.Header().String())), " ")
			if len(data) > maxShadowedText {
				data = "with what the wildcard has"
			}
			line := fmt.Sprintf("%s %d IN %s %s", owner, rr.Header().Ttl, dns.TypeToString[rr.Header().Rrtype], data)
			if i >= maxShadowed || length+len(line) > maxShadowedTexts {
				more++
				continue
			}
			length += len(line)
			all = append(all, line)
		}
	}
	if more > 0 {
		all = append(all, fmt.Sprintf("and %d more that the wildcard has", more))
	}
	return strings.Join(all, ", ")
}

// sameContent reports whether records are the same, apart from owner and TTL.
func sameContent(a, b []dns.RR) bool { return slices.Equal(content(a), content(b)) }

// content is what rrs have, without owner and TTL, sorted.
func content(rrs []dns.RR) []string {
	var all []string
	for _, rr := range rrs {
		all = append(all, dns.TypeToString[rr.Header().Rrtype]+strings.TrimPrefix(rr.String(), rr.Header().String()))
	}
	slices.Sort(all)
	return all
}

// mayShadow reports whether it has to be found out if the record would end a wildcard's answers:
// there is none yet, and the name is answered for as if it existed.
func (w *walk) mayShadow(wildcard string) bool {
	return !hasRecord(w.reports) &&
		slices.ContainsFunc(w.last.outcomes, func(o outcome) bool {
			return o.FromWildcard || o.Verdict == VerdictNo && o.Rcode == "NOERROR" && (len(o.Values) == 0 || wildcard != "")
		})
}
