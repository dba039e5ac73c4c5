package record

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/foreign"
)

// CAA is one CAA record (RFC 8659 section 4.1).
type CAA struct {
	Flags      uint8
	Tag, Value string
}

// Flags of a CAA record.
const (
	// caaCritical is the flag by which a CA that does not know the tag must refuse.
	caaCritical = 128
	// caaMistaken has so often been taken for it that Boulder does so as well.
	caaMistaken = 1
)

// CAARequest is a certificate that the CAA records have to allow.
type CAARequest struct {
	// IssuerDomainNames are the CA's.
	IssuerDomainNames []string
	// Wildcard is true for a wildcard identifier.
	Wildcard bool
	// Method is the challenge type, for `validationmethods` (RFC 8657 section 4).
	Method string
	// AccountURL is compared with `accounturi` (RFC 8657 section 3): in CAA it is the
	// plain account URL in every dialect of the challenge.
	AccountURL string
}

// CAAVerdict is what a CA makes of the CAA records of a name.
type CAAVerdict struct {
	// Outlook is OutlookBad if no CA may issue, and OutlookDepends where CAs differ.
	Outlook Outlook
	// Reason names the record that is wrong or doubtful; it is empty if all CAs may issue.
	Reason string
}

// rfc8657 is added where a verdict comes from its parameters.
const rfc8657 = " (RFC 8657: CAs have to honour it from 15 March 2027, some do already)"

// EvaluateCAA predicts what a CA makes of the CAA records of one name, those of the closest
// name that has any. One record that allows the CA is enough; one with bad syntax allows nobody.
func EvaluateCAA(records []CAA, want CAARequest) CAAVerdict {
	var issue, issuewild []CAA
	verdict := CAAVerdict{Outlook: OutlookGood}
	for _, r := range records {
		switch tag := strings.ToLower(r.Tag); tag {
		case "issue":
			issue = append(issue, r)
		case "issuewild":
			issuewild = append(issuewild, r)
		case "iodef":
		case "contactemail", "contactphone", "issuemail", "issuevmc":
			if r.Flags&(caaCritical|caaMistaken) != 0 {
				verdict = CAAVerdict{OutlookDepends, fmt.Sprintf("the tag %q is critical, and not every CA knows it", tag)}
			}
		default:
			quoted := foreign.Quote(r.Tag, maxQuotedCAA)
			switch {
			case r.Flags&caaCritical != 0:
				return CAAVerdict{OutlookBad, fmt.Sprintf("the tag %s is critical, and CAs do not know it", quoted)}
			case r.Flags&caaMistaken != 0:
				verdict = CAAVerdict{OutlookDepends, fmt.Sprintf("the tag %s has the flag 1, which some CAs take for critical, and CAs do not know it", quoted)}
			}
		}
	}
	relevant, tag := issue, "issue"
	if want.Wildcard && len(issuewild) > 0 {
		relevant, tag = issuewild, "issuewild"
	}
	if len(relevant) == 0 {
		return verdict
	}
	best := CAAVerdict{Outlook: OutlookBad}
	var reasons []string
	for _, r := range relevant {
		switch v := want.property(r.Value); {
		case v.Outlook == OutlookGood:
			return verdict
		case v.Outlook == OutlookDepends && best.Outlook == OutlookBad:
			best = CAAVerdict{OutlookDepends, fmt.Sprintf("%s %s %s", tag, foreign.Quote(r.Value, maxQuotedCAA), v.Reason)}
		case best.Outlook == OutlookBad && len(reasons) < maxIssuersNamed:
			reasons = append(reasons, fmt.Sprintf("%s %s %s", tag, foreign.Quote(r.Value, maxQuotedCAA), v.Reason))
		}
	}
	if best.Outlook == OutlookBad {
		best.Reason = strings.Join(reasons, "; ")
		if more := len(relevant) - len(reasons); more > 0 {
			best.Reason += fmt.Sprintf("; and %d more", more)
		}
	}
	return best
}

// maxQuotedCAA is how much of a record a reason quotes, in octets.
const maxQuotedCAA = 200

// property judges the value of one issue or issuewild property.
func (want CAARequest) property(value string) CAAVerdict {
	issuer, params, err := parseCAA(value)
	bad := func(reason string) CAAVerdict { return CAAVerdict{OutlookBad, reason} }
	if err != nil {
		return bad("breaks the grammar, so it allows nobody: " + err.Error())
	}
	verdict := CAAVerdict{Outlook: OutlookGood}
	worse := func(v CAAVerdict) {
		if outlookRank[v.Outlook] < outlookRank[verdict.Outlook] {
			verdict = v
		}
	}
	if !slices.Contains(want.IssuerDomainNames, issuer) {
		i := slices.IndexFunc(want.IssuerDomainNames, func(n string) bool { return normalizeIssuer(n) == normalizeIssuer(issuer) })
		switch {
		case i >= 0:
			worse(CAAVerdict{OutlookDepends, "is in other letters than " + want.IssuerDomainNames[i] + " or has a final dot, and some CAs compare octets: write it so"})
		case issuer == "":
			return bad("allows no CA")
		default:
			return bad("allows another CA")
		}
	}
	var seen []string
	for _, p := range params {
		tag := strings.ToLower(p.tag)
		known := tag == "accounturi" || tag == "validationmethods"
		switch repeated := slices.Contains(seen, p.tag); {
		case repeated && known:
			worse(bad(fmt.Sprintf("has %s twice, so it allows nobody", tag)))
		case repeated:
			worse(CAAVerdict{OutlookDepends, fmt.Sprintf("has the parameter %s twice, which some CAs refuse", p.tag)})
		case strings.Contains(p.tag, "-"):
			worse(CAAVerdict{OutlookDepends, fmt.Sprintf("has the parameter %s, and some CAs refuse a hyphen there", p.tag)})
		}
		seen = append(seen, p.tag)
		var v CAAVerdict
		switch tag {
		case "accounturi":
			v = want.account(p.value)
		case "validationmethods":
			v = want.methods(p.value)
		default:
			continue
		}
		if v.Outlook == OutlookBad && p.tag != tag {
			v = CAAVerdict{OutlookDepends, fmt.Sprintf("%s; but %s is not in small letters, and some CAs do not know it then", v.Reason, p.tag)}
		}
		worse(v)
	}
	return verdict
}

// account judges an accounturi (RFC 8657 section 3).
func (want CAARequest) account(uri string) CAAVerdict {
	depends := func(what string) CAAVerdict {
		return CAAVerdict{OutlookDepends, what + ", which a CA may take for this account, " + want.AccountURL + ", and need not" + rfc8657}
	}
	switch ours := want.AccountURL; {
	case uri == ours:
		return CAAVerdict{Outlook: OutlookGood}
	case strings.HasPrefix(strings.ToLower(uri), "acct:"):
		return depends("has an accounturi of the form acct:")
	case uri != "" && strings.HasPrefix(ours, strings.TrimSuffix(uri, "/")+"/") && strings.Count(uri, "/") > 3:
		return depends("has the accounturi of what may be a parent account")
	case formerURL(uri, ours):
		return depends("has an accounturi with the same number")
	}
	return CAAVerdict{OutlookBad, "is for another account than " + want.AccountURL + rfc8657}
}

// formerURL reports whether uri may be an earlier URL of an account: of the same number at
// another place of the same operator. Let's Encrypt takes those of its first protocol.
func formerURL(uri, ours string) bool {
	a, errA := url.Parse(uri)
	b, errB := url.Parse(ours)
	if errA != nil || errB != nil {
		return false
	}
	number := func(u *url.URL) string { return u.Path[strings.LastIndexByte(u.Path, '/')+1:] }
	operator := func(u *url.URL) string {
		labels := strings.Split(strings.ToLower(u.Hostname()), ".")
		return strings.Join(labels[max(0, len(labels)-2):], ".")
	}
	return number(a) != "" && number(a) == number(b) && operator(a) == operator(b)
}

// persistentDCV is the challenge by the name that section 4.2.2.1.2 of the Baseline
// Requirements gives to their method 3.2.2.4.22.
const persistentDCV = "ca-tbr-22"

// methods judges a list of validation methods (RFC 8657 section 4).
func (want CAARequest) methods(list string) CAAVerdict {
	verdict := CAAVerdict{OutlookBad, "does not list " + want.Method + " in validationmethods" + rfc8657}
	for method := range strings.SplitSeq(list, ",") {
		switch {
		case method == "" || strings.Trim(method, lettersDigits+"-") != "":
			return CAAVerdict{OutlookBad, "has " + foreign.Quote(method, maxQuotedCAA) + " in validationmethods, which is not a method, so it allows nobody: write methods with commas and nothing else between them"}
		case method == want.Method:
			verdict = CAAVerdict{Outlook: OutlookGood}
		case verdict.Outlook != OutlookBad:
		case method == persistentDCV:
			verdict = CAAVerdict{OutlookDepends, "lists " + method + " for " + want.Method + ", which CAs should know from 15 March 2027: list " + want.Method + " as well"}
		case strings.EqualFold(method, want.Method):
			verdict = CAAVerdict{OutlookDepends, "lists " + method + ", and some CAs compare octets: write " + want.Method}
		}
	}
	return verdict
}

type caaParam struct{ tag, value string }

// parseCAA reads the value of an issue or issuewild property by the grammar of RFC 8659
// section 4.2. A single semicolon behind the issuer is a part of it, one behind a parameter not.
func parseCAA(value string) (issuer string, params []caaParam, err error) {
	issuer, rest, more := strings.Cut(value, ";")
	issuer = trimSpace(issuer)
	if more && trimSpace(rest) == "" {
		return issuer, nil, nil
	}
	for more {
		var param string
		param, rest, more = strings.Cut(rest, ";")
		tag, v, found := strings.Cut(param, "=")
		tag, v = trimSpace(tag), trimSpace(v)
		switch {
		case !found && trimSpace(param) == "":
			return issuer, nil, errors.New("there is nothing behind a semicolon")
		case !found:
			return issuer, nil, fmt.Errorf("the parameter %s has no =", foreign.Quote(trimSpace(param), maxQuotedCAA))
		case !isCAATag(tag):
			return issuer, nil, fmt.Errorf("%s is not a tag of a parameter", foreign.Quote(tag, maxQuotedCAA))
		}
		if i := indexInvisible(v); i >= 0 {
			return issuer, nil, fmt.Errorf("the value of %s holds %s", foreign.Cut(tag, maxQuotedCAA), foreign.Quote(v[i:i+1], 1))
		}
		params = append(params, caaParam{tag, v})
	}
	return issuer, params, nil
}

// isCAATag reports whether s is a tag: letters and digits, with hyphens between them.
func isCAATag(s string) bool {
	return s != "" && s[0] != '-' && s[len(s)-1] != '-' && strings.Trim(s, lettersDigits+"-") == ""
}
