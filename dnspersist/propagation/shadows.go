package propagation

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation/internal/zones"
)

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
	i := slices.IndexFunc(st.outcomes, func(o outcome) bool { return o.Verdict == VerdictYes || o.Verdict == VerdictNo })
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
	return !slices.ContainsFunc(w.reports, func(s ServerReport) bool { return s.Verdict == VerdictYes && s.Alias == "" }) &&
		slices.ContainsFunc(w.last.outcomes, func(o outcome) bool {
			return o.FromWildcard || o.Verdict == VerdictNo && o.Rcode == "NOERROR" && (len(o.Values) == 0 || wildcard != "")
		})
}
