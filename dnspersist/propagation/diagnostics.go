package propagation

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

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
	if r.Status == StatusBlocked && r.allSilent() {
		all = append(all, Diagnostic{Code: CodePort53Blocked, Text: fmt.Sprintf(
			"no authoritative server of %s can be reached from here on port 53, over UDP or TCP: allow DNS to leave this network, or set resolvers and check recursive", r.Zone)})
	}
	if inside := r.inside(); len(inside) > 0 && r.FirstYes.IsZero() {
		more := ""
		if len(inside) > maxNamed {
			inside, more = inside[:maxNamed], fmt.Sprintf(" and %d more", len(inside)-maxNamed)
		}
		all = append(all, Diagnostic{Code: CodeInsideServers, Text: fmt.Sprintf(
			"the name servers that were asked are in this network (%s%s): outside, where a public CA asks, the domain may have others that show something else; publish the record there", strings.Join(inside, ", "), more)})
	}
	if r.Dropped > 0 {
		all = append(all, Diagnostic{Code: CodeTooManyServers, Text: fmt.Sprintf("%s has more addresses than are asked: %d were left out", r.Zone, r.Dropped)})
	}
	if !r.NextLookNotBefore.IsZero() {
		all = append(all, Diagnostic{Code: CodeResolverNegative, Text: fmt.Sprintf(
			"a resolver keeps its \"no\" until %s; asking earlier is of no use", r.NextLookNotBefore.UTC().Format(time.RFC3339))})
	}
	if r.Status == StatusAbsent && r.Zone != "" && !strings.Contains(r.Zone, ".") && r.dead(r.Name) {
		// a zone of one's own may be a top-level one, so this is reported and not concluded from
		all = append(all, Diagnostic{Code: CodeNotDelegated, Text: fmt.Sprintf(
			"%s does not exist in the top-level zone %s: if the domain should be delegated, it is not; register it, or set resolvers that know it", r.Name, r.Zone)})
	}
	if r.Wildcard != "" && r.FirstYes.IsZero() {
		all = append(all, Diagnostic{Code: CodeWildcard, Text: fmt.Sprintf(
			"%s is answered by a wildcard record above it (%s): it stops applying when the record is published at exactly this name, so publish it", r.Name, r.Wildcard)})
	}
	if r.Shadows != "" && r.FirstYes.IsZero() {
		all = append(all, Diagnostic{Code: CodeWildcardBreaks, Text: r.Shadows})
	}
	if a := r.Alias(); a.Kind == AliasNotAgreed {
		all = append(all, Diagnostic{Code: CodeAliasNotAgreed, Text: (&AliasError{a}).Error()})
	}
	seen := make(map[string]bool)
	for _, s := range r.Servers {
		if s.Alias == "" || s.Verdict == VerdictNo || seen[s.Alias] || r.Problem == CodeAliasLoop {
			continue
		}
		seen[s.Alias] = true
		d := Diagnostic{Code: CodeAlias, Text: fmt.Sprintf("%s is a CNAME to %s: CAs may follow it, but need not", s.Name, strings.TrimSuffix(s.Alias, "."))}
		if r.dead(s.Alias) {
			d = Diagnostic{Code: CodeAliasDead, Text: fmt.Sprintf("%s is a CNAME to %s, which does not exist: publish the record there, or remove the CNAME", s.Name, strings.TrimSuffix(s.Alias, "."))}
		}
		all = append(all, d)
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
		if err == nil && (s.Verdict == VerdictYes || s.Verdict == VerdictNo) && zones.IsPrivate(addr.Addr()) && !slices.Contains(all, addr.Addr().String()) {
			all = append(all, addr.Addr().String())
		}
	}
	return all
}

// dead reports whether the target exists at none of the servers that were asked for it.
func (r Report) dead(target string) bool {
	target = strings.TrimSuffix(target, ".")
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
