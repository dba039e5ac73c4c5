package propagation

import (
	"context"
	"slices"

	"github.com/miekg/dns"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation/internal/ask"
)

// bogus asks a resolver that validates whether the record of a signed zone stands up to
// that: CAs refuse what does not. It is asked only when the authoritative servers have the
// record, so that it does not get to cache a "no". It returns what the resolver says of a
// failure; nothing if the record validates, or if the resolver fails for another reason.
func (c *Checker) bogus(ctx context.Context, name string) string {
	for _, addr := range c.resolvers.addrs {
		ans, err := c.asker.Send(ctx, addr, validationQuery(name, dns.TypeTXT, false))
		if err != nil || ans.Rcode != dns.RcodeServerFailure {
			continue
		}
		if ans, bogus := c.resolvers.afterServfail(ctx, addr, name, dns.TypeTXT, ans); bogus {
			return rcodeText(ans.Msg)
		}
	}
	return ""
}

// afterServfail finds out why the resolver at addr answered SERVFAIL: because what it found
// does not validate, if it has an answer when told not to, and still none when it is to. The
// second half is needed because a resolver that gives up on a slow server has an answer a
// moment later from what it has learnt since: that one is returned then.
func (r *resolvers) afterServfail(ctx context.Context, addr, name string, qtype uint16, failed ask.Answer) (now ask.Answer, bogus bool) {
	ans, err := r.asker.Send(ctx, addr, validationQuery(name, qtype, true))
	if err != nil || (ans.Rcode != dns.RcodeSuccess && ans.Rcode != dns.RcodeNameError) {
		return failed, false
	}
	if blamesDNSSEC(failed.Msg) {
		return failed, true
	}
	ans, err = r.asker.Send(ctx, addr, validationQuery(name, qtype, false))
	switch {
	case err != nil:
		return failed, false
	case ans.Rcode == dns.RcodeServerFailure:
		return failed, true
	}
	return ans, false
}

// blamesDNSSEC reports whether an answer says that it failed because of DNSSEC, by an
// extended error (RFC 8914, section 4).
func blamesDNSSEC(m *dns.Msg) bool {
	opt := m.IsEdns0()
	return opt != nil && slices.ContainsFunc(opt.Option, func(o dns.EDNS0) bool {
		ede, ok := o.(*dns.EDNS0_EDE)
		if !ok {
			return false
		}
		switch c := ede.InfoCode; c {
		case dns.ExtendedErrorCodeUnsupportedDNSKEYAlgorithm, dns.ExtendedErrorCodeUnsupportedDSDigestType:
			return true
		default:
			return c >= dns.ExtendedErrorCodeDNSSECIndeterminate && c <= dns.ExtendedErrorCodeNSECMissing
		}
	})
}

// validationQuery is a question to a resolver; with unchecked it is told not to validate.
func validationQuery(name string, qtype uint16, unchecked bool) *dns.Msg {
	query := new(dns.Msg)
	query.SetQuestion(name, qtype)
	query.CheckingDisabled = unchecked
	query.SetEdns0(ask.UDPSize, true)
	return query
}

// complete reports whether servers show the record and none says no.
func complete(servers []ServerReport) bool {
	return slices.ContainsFunc(servers, func(s ServerReport) bool { return s.Verdict == VerdictYes && s.Alias == "" }) &&
		!slices.ContainsFunc(servers, func(s ServerReport) bool { return s.Verdict == VerdictNo })
}
