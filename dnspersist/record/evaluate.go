package record

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/foreign"
)

// Requirement is what a CA has to find at a name, and what else it may accept.
type Requirement struct {
	// IssuerDomainNames are the names under which the CA accepts a record.
	IssuerDomainNames []string
	// Dialect is what the CA asks for. Default: DialectAccountURL.
	Dialect Dialect
	// Wildcard is true for a wildcard identifier.
	Wildcard bool

	// AccountURI is the account URL, or the URI that a challenge of draft -01 names
	// in its place. It is compared octet by octet.
	AccountURI string

	// Domain is the name being validated, normalized and without "*."; AccountURL,
	// Thumbprint and AccountHashPrefix are the other inputs of a hashed account URI.
	// Without a prefix no hashed value is recognized.
	Domain, AccountURL, Thumbprint, AccountHashPrefix string
	// EarlierThumbprints are those of the account's earlier keys, the latest first.
	EarlierThumbprints []string

	// Reserve is how much longer than now a value must last: there is no point in
	// an order whose record ends before the CA has looked.
	Reserve time.Duration
}

// Evaluate predicts what a CA makes of the TXT values at a validation name, at the
// given time (sections 4.1, 4.2 and 9.3.1 of draft -02). One good value is enough,
// whatever is beside it.
func Evaluate(txts []string, want Requirement, now time.Time) Result {
	j := &judge{Requirement: want, now: now}
	r := Result{Verdicts: make([]Verdict, 0, len(txts)), judge: j}
	for _, txt := range txts {
		v, _ := j.value(txt)
		r.Verdicts = append(r.Verdicts, v)
	}
	return r
}

// judge reads values for one Requirement at one time.
type judge struct {
	Requirement
	now time.Time
	// explain makes reasons; without it there are only codes.
	explain bool
	// own and general are the hashes of the account for the name and for any name, zero
	// until they are needed.
	own, general [thumbprintLen]byte
}

// value reads one value. CAs differ in some points; where the implementations that are
// known (Boulder and Pebble) do, the outlook depends.
func (j *judge) value(txt string) (v Verdict, reason string) {
	p, err := Parse(txt)
	v = Verdict{Text: txt, Value: p.Value, Outlook: OutlookBad, refusal: refusedUnauthorized, judge: j}
	name, ours := j.issuer(p)
	if !ours {
		v.Code, reason = j.notOurs(txt, p, err)
		return v, reason
	}
	if err != nil {
		v.Code, v.refusal = CodeMalformed, refusedMalformed
		if j.explain {
			reason = j.malformed(txt, p, err)
		}
	} else {
		reason = j.parsed(&v, p)
	}
	// Pebble compares the issuer's name octet by octet, so this value is none of its business
	if p.Issuer != name {
		if v.Outlook == OutlookGood {
			v.Outlook = OutlookDepends
			if j.explain {
				reason = fmt.Sprintf("the issuer domain name is written %s: a CA need not take it for %s", foreign.Text(p.Issuer), name)
			}
		}
		v.refusal |= refusedUnauthorized
	}
	return v, reason
}

// malformed explains what is wrong with a value of this CA's issuer, in the words of what people
// did rather than of the grammar, where that is known.
func (j *judge) malformed(txt string, p Parsed, err error) string {
	if isCut(txt, p) {
		return reasonCut
	}
	if reason := j.miswritten(txt, p, err); reason != "" {
		return reason
	}
	return strings.TrimPrefix(err.Error(), errMalformed.Error()+": ")
}

// issuer finds the name under which the CA takes the value for its own, or may do so.
func (j *judge) issuer(p Parsed) (name string, ours bool) {
	if slices.Contains(j.IssuerDomainNames, p.Issuer) {
		return p.Issuer, true
	}
	for _, written := range []string{p.IssuerDomainName, foldIssuer(p.Issuer)} {
		i := slices.IndexFunc(j.IssuerDomainNames, func(n string) bool { return normalizeIssuer(n) == written })
		if i >= 0 && written != "" {
			return j.IssuerDomainNames[i], true
		}
	}
	return "", false
}

// parsed judges a well-formed value of this CA's issuer.
func (j *judge) parsed(v *Verdict, p Parsed) (reason string) {
	account := j.account(p.AccountURI)
	switch {
	case account.outlook == OutlookBad:
		v.Code, v.refusal, reason = account.code, 0, account.reason
	case j.Wildcard && !p.Wildcard:
		v.Code = CodePolicyMissing
		reason = "policy=wildcard is missing, the name is a wildcard: publish the value with it"
		if j.explain && p.PolicyRaw != "" {
			reason = fmt.Sprintf("policy=%s counts as none, the name is a wildcard: publish the value with policy=wildcard", p.PolicyRaw)
		}
	case p.HasPersistUntil && j.now.After(p.PersistUntil):
		v.Code, reason = CodeExpired, j.expired(p, "is past")
		if p.PersistUntil.IsZero() {
			v.Outlook = OutlookDepends // Boulder takes it for none
		}
	case p.HasPersistUntil && j.now.Add(j.Reserve).After(p.PersistUntil):
		v.Code, reason = CodeExpired, j.expired(p, "is too near to ask the CA")
	default:
		v.Code, v.Outlook, v.refusal, reason = account.code, account.outlook, account.refusal, account.reason
	}
	// a CA that does not know the account in this form looks no further
	v.refusal |= account.refusal
	if p.RepeatedTag == "" {
		return reason
	}
	// Boulder reads over it as over every unknown tag
	v.refusal |= refusedMalformed
	if v.Outlook != OutlookBad {
		v.Outlook = OutlookDepends
		if j.explain {
			reason = fmt.Sprintf("the tag %q appears twice: some CAs take the value for malformed", p.RepeatedTag)
		}
	}
	return reason
}

func (j *judge) expired(p Parsed, what string) string {
	if !j.explain {
		return ""
	}
	return fmt.Sprintf("persistUntil=%d (%s) %s: publish a value with a later end or none", p.PersistUntil.Unix(), p.PersistUntil.Format(time.DateTime), what)
}
