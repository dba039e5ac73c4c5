package record

import (
	"fmt"
	"slices"
	"strings"
)

// CAA is one CAA record (RFC 8659 section 4.1).
type CAA struct {
	// Critical is the flag of 128: a CA that does not know the tag must refuse.
	Critical   bool
	Tag, Value string
}

// CAAWant is what a CA has to be allowed to do.
type CAAWant struct {
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

// ForbiddenByCAA says why the CAA records of one name forbid the certificate; it is
// empty if they allow it. The records are those of the closest name that has any.
func ForbiddenByCAA(records []CAA, want CAAWant) string {
	var issue, issuewild []CAA
	for _, r := range records {
		switch strings.ToLower(r.Tag) {
		case "issue":
			issue = append(issue, r)
		case "issuewild":
			issuewild = append(issuewild, r)
		case "iodef", "contactemail", "contactphone", "issuemail", "issuevmc":
		default:
			if r.Critical {
				return fmt.Sprintf("the tag %q is critical, and CAs do not know it", r.Tag)
			}
		}
	}
	relevant, tag := issue, "issue"
	if want.Wildcard && len(issuewild) > 0 {
		relevant, tag = issuewild, "issuewild"
	}
	if len(relevant) == 0 {
		return ""
	}
	var reasons []string
	for _, r := range relevant {
		reason := want.forbids(r.Value)
		if reason == "" {
			return ""
		}
		reasons = append(reasons, fmt.Sprintf("%s %q %s", tag, r.Value, reason))
	}
	return strings.Join(reasons, "; ")
}

// forbids says why one issue or issuewild property does not allow the certificate.
func (want CAAWant) forbids(value string) string {
	issuer, params, _ := strings.Cut(value, ";")
	name := normalizeIssuer(trimSpace(issuer))
	if !slices.ContainsFunc(want.IssuerDomainNames, func(n string) bool { return normalizeIssuer(n) == name }) {
		if name == "" {
			return "allows no CA"
		}
		return "allows another CA"
	}
	for param := range strings.SplitSeq(params, ";") {
		tag, v, ok := strings.Cut(param, "=")
		if !ok {
			if trimSpace(param) != "" {
				return fmt.Sprintf("is malformed at %q", param)
			}
			continue
		}
		v = trimSpace(v)
		switch strings.ToLower(trimSpace(tag)) {
		case "validationmethods":
			if !slices.ContainsFunc(strings.Split(v, ","), func(m string) bool { return trimSpace(m) == want.Method }) {
				return "does not list " + want.Method + " in validationmethods"
			}
		case "accounturi":
			if v != want.AccountURL {
				return "is for another account than " + want.AccountURL
			}
		}
	}
	return ""
}
