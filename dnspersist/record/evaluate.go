package record

import (
	"cmp"
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

// Code is what a value is worth.
type Code string

// Codes of a Verdict.
const (
	// CodeGood: it has all that the CA wants to see.
	CodeGood Code = "good"
	// CodePolicyMissing: policy=wildcard is missing.
	CodePolicyMissing Code = "policy_missing"
	// CodeExpired: persistUntil is past.
	CodeExpired Code = "expired"
	// CodeOtherDialect: it names our account in the form of another draft.
	CodeOtherDialect Code = "other_dialect"
	// CodeEarlierKey: it names our account by an earlier key of it.
	CodeEarlierKey Code = "earlier_key"
	// CodeMalformed: it is for this CA, but breaks the grammar.
	CodeMalformed Code = "malformed"
	// CodeWrongAccount: it names another account.
	CodeWrongAccount Code = "wrong_account"
	// CodeWrongIssuer: it is a record of this kind for another CA.
	CodeWrongIssuer Code = "wrong_issuer"
	// CodeMiswritten: it was meant for this CA, but is written so that the CA does not take it
	// for its own: quotes in the value, commas for semicolons, no issuer domain name.
	CodeMiswritten Code = "miswritten"
	// CodeForeign: it is not a record of this kind.
	CodeForeign Code = "foreign"
)

// Outlook is what to expect of a CA.
type Outlook string

const (
	// OutlookGood: every CA accepts it.
	OutlookGood Outlook = "good"
	// OutlookBad: no CA accepts it.
	OutlookBad Outlook = "bad"
	// OutlookDepends: CAs differ, or this one may accept more than it has to.
	OutlookDepends Outlook = "depends"
)

// Error types that a CA reports (RFC 8555 section 6.7), without the namespace.
const (
	errorUnauthorized = "unauthorized"
	errorMalformed    = "malformed"
)

// refusal is what a CA may report if it does not accept a value.
type refusal uint8

const (
	refusedUnauthorized refusal = 1 << iota
	refusedMalformed
)

// Verdict is what a CA makes of one value.
type Verdict struct {
	// Text is the value as published.
	Text string
	Code Code
	// Outlook is OutlookDepends also with CodeGood where CAs differ in spelling.
	Outlook Outlook
	// Value is what could be read of it.
	Value Value

	refusal refusal
	judge   *judge
}

// maxReason bounds the explanation of a value, which may be long: two account URIs fit.
const maxReason = 2000

// Reason explains what is wrong or doubtful to a person, and what to do. It is empty if
// every CA accepts the value.
func (v Verdict) Reason() string {
	if v.judge == nil {
		return ""
	}
	// most reasons are never read, and finding near misses takes more than judging
	j := *v.judge
	j.explain = true
	_, reason := j.value(v.Text)
	return foreign.Cut(reason, maxReason)
}

// IsNearMiss reports whether the value was meant to be the record of this account and is not:
// the right one takes its place, while others go on beside it.
func (v Verdict) IsNearMiss() bool {
	switch v.Code {
	case CodePolicyMissing, CodeExpired, CodeMiswritten:
		return true
	case CodeWrongIssuer:
		return v.judge != nil && v.judge.namesUs(v.Value.AccountURI)
	case CodeMalformed:
		if _, err := Parse(v.Text); err != nil {
			return true // it is good for nobody
		}
		return v.judge != nil && v.judge.nearlyNamesUs(v.Value.AccountURI)
	case CodeWrongAccount:
		return v.judge != nil && v.judge.nearlyNamesUs(v.Value.AccountURI)
	}
	return false
}

// types are the error types of which a CA reports one; empty for a value that every CA accepts.
func (r refusal) types() []string {
	var types []string
	if r&refusedMalformed != 0 {
		types = append(types, errorMalformed)
	}
	if r&refusedUnauthorized != 0 {
		types = append(types, errorUnauthorized)
	}
	return types
}

// Result is what a CA makes of all values at a name, in their order.
type Result struct {
	Verdicts []Verdict

	judge *judge
}

// Outlook is what to expect of the CA: one good value is enough.
func (r Result) Outlook() Outlook {
	outlook := OutlookBad
	for _, v := range r.Verdicts {
		switch v.Outlook {
		case OutlookGood:
			return OutlookGood
		case OutlookDepends:
			outlook = OutlookDepends
		}
	}
	return outlook
}

// Good reports whether every CA accepts the name.
func (r Result) Good() bool { return r.Outlook() == OutlookGood }

// ErrorTypes returns the types of which a CA that refuses the name reports one. A
// malformed value of its own hides that others are merely not authorized. It is empty
// if the name is good.
func (r Result) ErrorTypes() []string {
	if r.Good() {
		return nil
	}
	all := refusedUnauthorized
	for _, v := range r.Verdicts {
		switch {
		case v.refusal == refusedMalformed && v.Outlook == OutlookBad:
			return refusedMalformed.types()
		case v.refusal&refusedMalformed != 0:
			all |= refusedMalformed
		}
	}
	return all.types()
}

// closeness orders the codes by how little is missing.
var closeness = []Code{
	CodeForeign, CodeWrongIssuer, CodeWrongAccount, CodeMiswritten, CodeMalformed, CodeExpired, CodePolicyMissing,
	CodeEarlierKey, CodeOtherDialect, CodeGood,
}

var outlookRank = map[Outlook]int{OutlookGood: 2, OutlookDepends: 1, OutlookBad: 0}

// closest returns the verdict on the value that is nearest to being accepted. ok is false
// if there is no value.
func (r Result) closest() (v Verdict, ok bool) {
	if len(r.Verdicts) == 0 {
		return v, false
	}
	return slices.MaxFunc(r.Verdicts, func(a, b Verdict) int {
		byOutlook := cmp.Compare(outlookRank[a.Outlook], outlookRank[b.Outlook])
		return cmp.Or(byOutlook, cmp.Compare(slices.Index(closeness, a.Code), slices.Index(closeness, b.Code)))
	}), true
}
