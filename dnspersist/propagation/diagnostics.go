package propagation

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation/internal/ask"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation/internal/zones"
)

// Diagnostic is one thing that was found, in words for a person.
type Diagnostic struct {
	Code Code `json:"code"`
	// Host and Addr are those of the server that it is about, if it is about one.
	Host string `json:"host,omitempty"`
	Addr string `json:"addr,omitempty"`
	// Place is the name at which the record is by mistake, with CodeWrongName and an
	// acceptable record.
	Place string `json:"place,omitempty"`
	// Text is what was found where, and what to do.
	Text string `json:"text"`
}

// Diagnostics lists what was found: first how far the record is visible, then what is
// wrong on the way to the record, then with servers.
func (r Report) Diagnostics() []Diagnostic {
	all := []Diagnostic{{Code: r.code(), Text: r.Summary()}}
	all = append(all, r.wayDiagnostics()...)
	for _, g := range groupServers(r.Servers) {
		for _, h := range g.hosts {
			all = append(all, r.serverDiagnostics(h)...)
		}
	}
	return all
}

// Codes lists the codes of Diagnostics, each once, sorted: what has changed if they have.
func (r Report) Codes() []Code {
	var codes []Code
	for _, d := range r.Diagnostics() {
		codes = append(codes, d.Code)
	}
	slices.Sort(codes)
	return slices.Compact(codes)
}

// code is the most telling one about the record.
func (r Report) code() Code {
	switch {
	case r.Problem != "":
		return r.Problem
	case r.Bogus != "":
		return CodeBogus
	case r.Status == StatusBlocked && r.allSilent():
		return CodePort53Blocked
	}
	return Code(r.Status)
}

// allSilent reports whether none of several authoritative addresses has answered, although
// the resolvers did, and no server of another zone either.
func (r Report) allSilent() bool {
	return r.Mode == ModeAuthoritative && len(r.Servers) > 1 && !r.Port53Open &&
		!slices.ContainsFunc(r.Servers, func(s ServerReport) bool { return s.Verdict != VerdictSilent })
}

func (r Report) wayDiagnostics() []Diagnostic {
	var all []Diagnostic
	add := func(code Code, format string, args ...any) {
		all = append(all, Diagnostic{Code: code, Text: fmt.Sprintf(format, args...)})
	}
	if r.Status == StatusBlocked && r.allSilent() {
		add(CodePort53Blocked, "no authoritative server of %s can be reached from here on port 53, over UDP or TCP: allow DNS to leave this network, or set resolvers and check recursive", r.Zone)
	}
	if inside := r.inside(); len(inside) > 0 && r.FirstYes.IsZero() {
		more := ""
		if len(inside) > maxNamed {
			inside, more = inside[:maxNamed], fmt.Sprintf(" and %d more", len(inside)-maxNamed)
		}
		add(CodeInsideServers, "the name servers that were asked are in this network (%s%s): outside, where a public CA asks, the domain may have others that show something else; publish the record there", strings.Join(inside, ", "), more)
	}
	if r.Dropped > 0 {
		add(CodeTooManyServers, "%s has more addresses than are asked: %d were left out", r.Zone, r.Dropped)
	}
	if !r.NextLookNotBefore.IsZero() {
		add(CodeResolverNegative, "a resolver keeps its \"no\" until %s; asking earlier is of no use", r.NextLookNotBefore.UTC().Format(time.RFC3339))
	}
	if r.Status == StatusAbsent && r.Zone != "" && !strings.Contains(r.Zone, ".") && r.dead(r.Name) {
		// a zone of one's own may be a top-level one, so this is reported and not concluded from
		add(CodeNotDelegated, "%s does not exist in the top-level zone %s: if the domain should be delegated, it is not; register it, or set resolvers that know it", r.Name, r.Zone)
	}
	if r.Wildcard != "" && r.FirstYes.IsZero() {
		add(CodeWildcard, "%s is answered by a wildcard record above it (%s): it stops applying when the record is published at exactly this name, so publish it", r.Name, r.Wildcard)
	}
	if r.Shadows != "" && r.FirstYes.IsZero() {
		add(CodeWildcardBreaks, "%s", r.Shadows)
	}
	if a := r.Alias(); a.Kind == AliasNotAgreed {
		add(CodeAliasNotAgreed, "%s", (&AliasError{a}).Error())
	}
	seen := make(map[string]bool)
	for _, s := range r.Servers {
		if s.Alias == "" || s.Verdict == VerdictNo || seen[s.Alias] || r.Problem == CodeAliasLoop {
			continue
		}
		seen[s.Alias] = true
		if target := strings.TrimSuffix(s.Alias, "."); r.dead(target) {
			add(CodeAliasDead, "%s is a CNAME to %s, which does not exist: publish the record there, or remove the CNAME", s.Name, target)
		} else {
			add(CodeAlias, "%s is a CNAME to %s: CAs may follow it, but need not", s.Name, target)
		}
	}
	return all
}

// inside lists the addresses in this network at which authoritative servers have answered.
func (r Report) inside() []string {
	if r.Mode != ModeAuthoritative {
		return nil
	}
	var all []string
	for _, s := range r.Servers {
		addr, err := netip.ParseAddrPort(s.Addr)
		if err == nil && s.Verdict.isAnswer() && zones.IsPrivate(addr.Addr()) && !slices.Contains(all, addr.Addr().String()) {
			all = append(all, addr.Addr().String())
		}
	}
	return all
}

// dead reports whether the target exists at none of the servers that were asked for it.
func (r Report) dead(target string) bool {
	asked := 0
	for _, s := range r.Servers {
		if s.Name != target {
			continue
		}
		if asked++; !strings.HasPrefix(s.Rcode, "NXDOMAIN") {
			return false
		}
	}
	return asked > 0
}

func (r Report) serverDiagnostics(h host) []Diagnostic {
	var all []Diagnostic
	s := h.report
	add := func(code Code, format string, args ...any) {
		all = append(all, Diagnostic{Code: code, Host: s.Host, Addr: s.Addr, Text: h.shown() + " " + fmt.Sprintf(format, args...)})
	}
	counts := "it is waited for"
	if slices.Contains(r.Excused, s.Host) {
		counts = "left out, for the CA's resolver asks the others"
	}
	since := ""
	if !s.BadSince.IsZero() {
		since = " since " + s.BadSince.UTC().Format(time.RFC3339)
	}
	switch s.Defect {
	case "":
	case CodeUnreachable:
		add(s.Defect, "does not answer on port 53 over UDP or TCP%s (%s)", since, counts)
	case CodeServfail:
		add(s.Defect, "answers %s%s: the zone has expired or is not loaded there (%s)", s.Rcode, since, counts)
	case CodeLame:
		add(s.Defect, "is listed for %s but not authoritative for it%s: %s; take it off the delegation or configure the zone there (%s)", s.Zone, since, s.Reason, counts)
	case CodeTCPBlocked:
		add(s.Defect, "truncates its answer and cannot be asked over TCP%s: CAs fail there (%s)", since, s.Reason)
	case CodePrivate:
		add(s.Defect, "has a private address: a public CA cannot ask it; if the CA is inside this network as well, set %s", zones.OptionAllowPrivate)
	case CodeIntercepted:
		add(s.Defect, "should be authoritative but answers as a resolver: DNS on this network is intercepted; set resolvers and check recursive")
	case CodeEDNSBroken:
		add(s.Defect, "answers only questions without EDNS: CAs' resolvers need more of them, or fail; update the server, or the firewall before it")
	case CodeAAMissing:
		add(s.Defect, "has the record but does not set AA: CAs' resolvers may not take it")
	default:
		add(s.Defect, "%s%s (%s)", s.Reason, since, counts)
	}
	switch s.Listed {
	case "parent":
		add(CodeMismatch, "is listed by the zone above %s but not by the zone: resolvers ask it; update the delegation at the registrar", s.Zone)
	case "zone":
		add(CodeMismatch, "is listed by %s but not by the zone above: resolvers may ask it; update the delegation at the registrar", s.Zone)
	}
	return all
}

// Code is a stable word for what was found, for programs and alerts.
type Code = ask.Code

// Codes of a [Diagnostic], which programs and alerts read in the JSON of commands and of the
// admin API. The first group is how far a record is visible, the second what is wrong with a
// server, the third what is wrong on the way to the record.
const (
	CodeAbsent     Code = "absent"
	CodePartial    Code = "partial"
	CodeBlocked    Code = "blocked"
	CodeConfirming Code = "confirming"
	CodeReady      Code = "ready"

	CodeUnreachable Code = "ns_unreachable" // no answer over UDP or TCP
	CodeServfail    Code = "ns_servfail"
	CodeLame        Code = "ns_lame" // listed for the zone, but not authoritative for it
	CodeBroken      Code = "ns_broken"
	CodeNoAddress   Code = "ns_no_address"
	CodePrivate     Code = "private_ns"
	CodeIntercepted Code = "intercepted"
	CodeTCPBlocked       = ask.CodeTCPBlocked
	CodeAAMissing   Code = "aa_missing"
	CodeEDNSBroken  Code = "edns_broken"
	CodeMismatch    Code = "ns_mismatch" // parent and zone list different servers

	CodeNotAsked         Code = "not_asked"   // to stay under a rate
	CodeLookBudget       Code = "look_budget" // the way to the record costs more than one look may
	CodeInsideServers    Code = "inside_ns"   // those that were asked are in this network
	CodePort53Blocked    Code = "port53_blocked"
	CodeAlias            Code = "alias_ok"
	CodeAliasLoop        Code = "alias_loop"
	CodeAliasDead        Code = "alias_dead"
	CodeAliasNotAgreed   Code = "alias_not_agreed" // only some servers show the CNAME
	CodeWildcard         Code = "wildcard"
	CodeNotDelegated          = zones.CodeNotDelegated
	CodeZoneUnknown           = zones.CodeZoneUnknown
	CodeResolverFailed        = zones.CodeResolverFailed
	CodeBogus                 = zones.CodeBogus
	CodeResolverNegative Code = "resolver_negative"
	CodeWrongName        Code = "wrong_name" // the record is published elsewhere
	CodeWildcardBreaks   Code = "wildcard_will_break"
	CodeUnsigned         Code = "zone_unsigned"
	CodeTooManyServers   Code = "too_many_servers"
)

// Diagnose looks once at all servers and then asks one of them what polls never ask: whether
// the record is published at a name that is nearly right. That is some 20 questions, for a person
// who waits for them, with a budget of their own. In recursive mode, where none may be asked for
// too much, it is a look alone.
func (c *Checker) Diagnose(ctx context.Context, t Target) (Report, []Diagnostic) {
	r, w := c.walked(ctx, t, -1, nil)
	ctx, _, cancel := ask.Begin(ctx)
	defer cancel()
	if w.mayShadow(r.Wildcard) { // what is remembered for polls may be of an hour ago
		r.Shadows = w.shadows(ctx, t.host())
	}
	rep := c.NewGate().Observe(r)
	all := rep.Diagnostics()
	i := slices.IndexFunc(w.last.outcomes, func(o outcome) bool { return o.Verdict.isAnswer() })
	if i < 0 {
		return rep, all
	}
	if !w.signed && rep.Mode == ModeAuthoritative {
		all = append(all, Diagnostic{Code: CodeUnsigned, Text: fmt.Sprintf(
			"the zone %s is not signed: who can forge DNS answers can forge a record that lasts; DNSSEC protects it", rep.Zone)})
	}
	if rep.FirstYes.IsZero() && t.Mistaken != nil {
		addr := zones.DNSAddr(w.last.asked[i].Addr)
		all = append(all, w.wrongNames(ctx, addr, t.Mistaken(zones.Display(w.last.zone.Name)), r.Wildcard != "")...)
	}
	return rep, all
}

// wrongNames asks the server at addr for the record where it is put by mistake. wildcard is set if
// one answers for names that nobody has.
func (w *walk) wrongNames(ctx context.Context, addr string, places []Place, wildcard bool) []Diagnostic {
	var all []Diagnostic
	for _, place := range places {
		name := dns.CanonicalName(place.Name)
		if _, ok := dns.IsDomainName(name); !ok || name == w.last.name || !dns.IsSubDomain(w.last.zone.Name, name) {
			continue
		}
		ans, err := w.c.asker.Ask(ctx, addr, name, dns.TypeTXT, false)
		if err != nil || ans.Rcode != dns.RcodeSuccess {
			continue
		}
		values, _ := txtValues(ans.Answer, name)
		if len(values) == 0 {
			continue
		}
		good := false
		if w.accept != nil {
			good, _ = w.accept(slices.Clone(values))
		}
		d := Diagnostic{Code: CodeWrongName, Addr: addr}
		switch {
		case good:
			d.Place = zones.Display(name)
			d.Text = fmt.Sprintf("%s has no acceptable record, but %s has one: %s; move it", zones.Display(w.last.name), zones.Display(name), place.Why)
		case place.Conclusive && !wildcard:
			d.Text = fmt.Sprintf("%s has no acceptable record, and the TXT record at %s was probably meant for it: %s, and its value is not the right one either", zones.Display(w.last.name), zones.Display(name), place.Why)
		default:
			continue
		}
		all = append(all, d)
	}
	return all
}
