package propagation

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation/internal/ask"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation/internal/zones"
)

// outcome is what one answer means, for the gate and for the way on.
type outcome struct {
	ServerReport

	// deeper is the zone below the one asked in that the answer shows, by a
	// referral or by the SOA record of a negative answer. Empty if none.
	deeper string
	// hosts, glue and nsTTL are the content of a referral to deeper.
	hosts []string
	glue  map[string][]netip.Addr
	nsTTL uint32
}

// acceptFunc is Target.Accept.
type acceptFunc func(values []string) (good bool, reason string)

// classify returns what m, the answer of a server of zone to a TXT question for
// name, means. What counts is what a validating resolver would make of it.
func classify(zone, name string, m *dns.Msg, accept acceptFunc) outcome {
	o := outcome{ServerReport: ServerReport{Rcode: ask.RcodeText(m)}}
	if m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError {
		code := CodeLame
		if m.Rcode == dns.RcodeServerFailure {
			code = CodeServfail
		}
		return o.broken(code, fmt.Sprintf("answers %s: the zone %s is not served there", o.Rcode, zones.Display(zone)))
	}
	if !m.Authoritative && m.RecursionAvailable && !refersBelow(zone, name, m) {
		return o.broken(CodeIntercepted, "answers as a resolver would, not as a name server of the zone (AA clear, RA set): DNS is intercepted on the way, or a resolver is listed as a name server")
	}
	if o.fromAnswer(name, m, accept) {
		return o
	}

	soa := zones.SOAOf(m.Ns, name)
	if soa != nil {
		owner := dns.CanonicalName(soa.Hdr.Name)
		o.Serial = soa.Serial
		o.NegativeTTL = min(soa.Hdr.Ttl, soa.Minttl)
		if zones.IsBelow(owner, zone) {
			o.deeper = owner
		}
	} else if cut := zones.CutOf(m.Ns, name); cut != "" && m.Rcode == dns.RcodeSuccess {
		if zones.IsBelow(cut, zone) {
			o.deeper = cut
			o.hosts, o.nsTTL = zones.NSRecords(m.Ns, cut)
			o.glue = zones.GlueOf(m.Extra)
			return o.broken("", "refers to "+zones.Display(cut))
		}
		if !m.Authoritative {
			return o.broken(CodeLame, fmt.Sprintf("is lame for %s: refers to %s", zones.Display(zone), zones.Display(cut)))
		}
	}
	if m.Rcode == dns.RcodeSuccess && !m.Authoritative && soa == nil {
		return o.broken(CodeLame, fmt.Sprintf("is lame for %s: an empty answer without authority", zones.Display(zone)))
	}
	// Resolvers believe a negative answer also where AA is missing.
	o.Verdict, o.Reason = VerdictNo, absence(m)
	return o
}

// absence is what a negative answer shows.
func absence(m *dns.Msg) string {
	if m.Rcode == dns.RcodeNameError {
		return "the name does not exist"
	}
	return "no TXT record"
}

// refersBelow reports whether m is a referral to a zone below zone. A name server that also
// recurses for this client sets RA in it, and no resolver gives one; if it is one that
// intercepts nevertheless, that shows at the servers below.
func refersBelow(zone, name string, m *dns.Msg) bool {
	cut := zones.CutOf(m.Ns, name)
	return m.Rcode == dns.RcodeSuccess && len(m.Answer) == 0 && cut != "" && zones.IsBelow(cut, zone) && zones.SOAOf(m.Ns, name) == nil
}

// fromAnswer judges the answer section: what is at name itself. What a server
// adds of the target of a CNAME is for that zone's servers to show.
func (o *outcome) fromAnswer(name string, m *dns.Msg, accept acceptFunc) bool {
	for _, rr := range m.Answer {
		if c, ok := rr.(*dns.CNAME); ok && dns.CanonicalName(c.Hdr.Name) == name {
			o.Verdict, o.Alias = VerdictYes, dns.CanonicalName(c.Target)
			o.Reason = "is a CNAME to " + zones.Display(o.Alias)
			return true
		}
	}
	o.Values, o.TTL = txtValues(m.Answer, name)
	if o.Values == nil {
		return false
	}
	o.judge(accept)
	if !m.Authoritative && o.Verdict == VerdictYes {
		o.Reason, o.Defect = "does not set AA", CodeAAMissing
	}
	return true
}

// judge sets the verdict by the values.
func (o *outcome) judge(accept acceptFunc) {
	o.Verdict = VerdictYes
	if accept == nil {
		return
	}
	if good, reason := accept(slices.Clone(o.Values)); !good {
		o.Verdict, o.Reason = VerdictNo, reason
		if reason == "" {
			o.Reason = "no acceptable TXT record"
		}
	}
}

func (o outcome) broken(defect Code, reason string) outcome {
	o.Verdict, o.Reason, o.Defect = VerdictBroken, reason, defect
	return o
}

// classifyFailure returns what it means that no usable answer came. That the asker's time was up is
// no fault of the server's.
func classifyFailure(ctx context.Context, err error) outcome {
	o := outcome{ServerReport: ServerReport{Verdict: VerdictSilent, Reason: err.Error(), Defect: CodeUnreachable}}
	if errors.Is(err, ask.ErrBadReply) {
		o.Verdict, o.Defect = VerdictBroken, CodeBroken
	}
	if code := ask.CodeOf(err); code != "" {
		o.Defect = code
	}
	if errors.Is(err, ask.ErrNotAsked) {
		o.Defect = CodeNotAsked
	}
	if ctx.Err() != nil {
		o.Verdict, o.Defect, o.Reason = VerdictSilent, CodeNotAsked, "had not answered when the time was up"
	}
	return o
}

// classifyRecursive returns what m, the answer of a resolver, means: here the
// chain of CNAMEs is followed inside the answer.
func classifyRecursive(name string, m *dns.Msg, accept acceptFunc) outcome {
	o := outcome{ServerReport: ServerReport{Rcode: ask.RcodeText(m)}}
	if m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError {
		return o.broken(CodeResolverFailed, "the resolver answers "+o.Rcode)
	}
	end := name
	for range maxAliases {
		i := slices.IndexFunc(m.Answer, func(rr dns.RR) bool {
			c, ok := rr.(*dns.CNAME)
			return ok && dns.CanonicalName(c.Hdr.Name) == end
		})
		if i < 0 {
			break
		}
		end = dns.CanonicalName(m.Answer[i].(*dns.CNAME).Target)
	}
	if end != name {
		o.Via = zones.Display(end)
	}
	o.Values, o.TTL = txtValues(m.Answer, end)
	if o.Values != nil {
		if o.judge(accept); o.Verdict == VerdictNo {
			o.NegativeTTL = o.TTL // that long the resolver shows the old values
		}
		return o
	}
	o.Verdict, o.Reason = VerdictNo, absence(m)
	if soa := zones.SOAOf(m.Ns, end); soa != nil {
		o.Serial, o.NegativeTTL = soa.Serial, min(soa.Hdr.Ttl, soa.Minttl)
	}
	return o
}

// txtValues returns the values of the TXT records at name, the
// character-strings of each joined; nil if there is none.
func txtValues(rrs []dns.RR, name string) (values []string, ttl uint32) {
	for _, rr := range rrs {
		if txt, ok := rr.(*dns.TXT); ok && dns.CanonicalName(txt.Hdr.Name) == name {
			values = append(values, unescape(strings.Join(txt.Txt, "")))
			ttl = txt.Hdr.Ttl
		}
	}
	return values, ttl
}

// unescape undoes the presentation format in which miekg/dns keeps the
// strings of TXT records.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	out := make([]byte, 0, len(s))
	digit := func(i int) bool { return i < len(s) && s[i] >= '0' && s[i] <= '9' }
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] != '\\' || i+1 == len(s):
			out = append(out, s[i])
		case digit(i+1) && digit(i+2) && digit(i+3):
			out = append(out, (s[i+1]-'0')*100+(s[i+2]-'0')*10+s[i+3]-'0')
			i += 3
		default:
			i++
			out = append(out, s[i])
		}
	}
	return string(out)
}
