package lab

import (
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// forbiddenByCAA is the problem of a validation whose CAA records do not allow the CA to issue,
// read as Boulder reads them; nil if they do.
func (c *CA) forbiddenByCAA(identifier, method, account string) *Problem {
	domain, wildcard := strings.CutPrefix(identifier, "*.")
	for name := dns.Fqdn(domain); name != "."; {
		reply, err := c.forward(new(dns.Msg).SetQuestion(name, dns.TypeCAA))
		if err != nil || reply.Rcode != dns.RcodeSuccess && reply.Rcode != dns.RcodeNameError {
			return &Problem{"dns", "While processing CAA for " + domain + ": DNS problem: looking up CAA for " + name}
		}
		var set []*dns.CAA
		for _, rr := range reply.Answer {
			if caa, ok := rr.(*dns.CAA); ok {
				set = append(set, caa)
			}
		}
		if len(set) > 0 {
			if c.allowedByCAA(set, wildcard, method, account) {
				return nil
			}
			return &Problem{"caa", "While processing CAA for " + domain + ": CAA record for " + strings.TrimSuffix(name, ".") + " prevents issuance"}
		}
		i, end := dns.NextLabel(name, 0)
		if end {
			break
		}
		name = name[i:]
	}
	return nil
}

// allowedByCAA judges the CAA records of one name.
func (c *CA) allowedByCAA(set []*dns.CAA, wildcard bool, method, account string) bool {
	var issue, issuewild []string
	for _, r := range set {
		switch strings.ToLower(r.Tag) {
		case "issue":
			issue = append(issue, r.Value)
		case "issuewild":
			issuewild = append(issuewild, r.Value)
		case "iodef", "issuemail":
		default:
			if r.Flag&(1|128) != 0 {
				return false // both bits have been taken for the critical one
			}
		}
	}
	relevant := issue
	if wildcard && len(issuewild) > 0 {
		relevant = issuewild
	}
	if len(relevant) == 0 {
		return true
	}
	return slices.ContainsFunc(relevant, func(value string) bool {
		issuer, params, ok := parseCAA(value)
		if !ok || !slices.Contains(c.config.IssuerNames, issuer) {
			return false
		}
		if accounts := params["accounturi"]; len(accounts) > 1 || len(accounts) == 1 && accounts[0] != account {
			return false
		}
		methods := params["validationmethods"]
		if len(methods) != 1 {
			return len(methods) == 0
		}
		list := strings.Split(methods[0], ",")
		return slices.Contains(list, method) && !slices.ContainsFunc(list, func(m string) bool {
			return m == "" || strings.ContainsFunc(strings.ReplaceAll(m, "-", ""), notAlphanumeric)
		})
	})
}

// parseCAA splits the value of an issue or issuewild property. What does not keep to the
// grammar of RFC 8659 section 4.2 allows nobody.
func parseCAA(value string) (issuer string, params map[string][]string, ok bool) {
	parts := strings.Split(value, ";")
	issuer, rest := trimSpace(parts[0]), parts[1:]
	if len(rest) == 1 && trimSpace(rest[0]) == "" {
		return issuer, nil, true
	}
	params = make(map[string][]string)
	for _, p := range rest {
		tag, v, found := strings.Cut(p, "=")
		tag, v = trimSpace(tag), trimSpace(v)
		if !found || tag == "" || strings.ContainsFunc(tag, notAlphanumeric) || strings.ContainsFunc(v, notVisible) {
			return "", nil, false
		}
		params[tag] = append(params[tag], v)
	}
	return issuer, params, true
}

func notAlphanumeric(r rune) bool {
	return !('0' <= r && r <= '9' || 'A' <= r && r <= 'Z' || 'a' <= r && r <= 'z')
}

func notVisible(r rune) bool { return r <= ' ' || r > '~' }
