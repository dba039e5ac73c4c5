package propagation

import (
	"context"
	"slices"

	"github.com/miekg/dns"
)

// bogus asks a resolver that validates whether the record of a signed zone stands up to
// that: CAs refuse what does not. It is asked only when the authoritative servers have the
// record, so that it does not get to cache a "no". It returns what the resolver says of a
// failure; nothing if the record validates, or if the resolver fails for another reason.
func (c *Checker) bogus(ctx context.Context, name string) string {
	for _, addr := range c.resolvers.addrs {
		ans, err := c.asker.send(ctx, addr, validationQuery(name, false))
		if err != nil || ans.Rcode != dns.RcodeServerFailure {
			continue
		}
		why := rcodeText(ans.Msg)
		unchecked, err := c.asker.send(ctx, addr, validationQuery(name, true))
		if err == nil && unchecked.Rcode == dns.RcodeSuccess {
			return why
		}
	}
	return ""
}

// validationQuery is a question to a resolver; with unchecked it is told not to validate.
func validationQuery(name string, unchecked bool) *dns.Msg {
	query := new(dns.Msg)
	query.SetQuestion(name, dns.TypeTXT)
	query.CheckingDisabled = unchecked
	query.SetEdns0(udpSize, true)
	return query
}

// complete reports whether servers show the record and none says no.
func complete(servers []ServerReport) bool {
	return slices.ContainsFunc(servers, func(s ServerReport) bool { return s.Verdict == VerdictYes && s.Alias == "" }) &&
		!slices.ContainsFunc(servers, func(s ServerReport) bool { return s.Verdict == VerdictNo })
}
