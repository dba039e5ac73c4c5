package record

import (
	"slices"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/foreign"
)

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

// errorTypes returns the types of which a CA reports one if it refuses the value; it
// is empty for one that every CA accepts.
func (v Verdict) errorTypes() []string { return v.refusal.types() }

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

// closer reports whether v is nearer to being accepted than w.
func (v Verdict) closer(w Verdict) bool {
	if a, b := outlookRank[v.Outlook], outlookRank[w.Outlook]; a != b {
		return a > b
	}
	return slices.Index(closeness, v.Code) > slices.Index(closeness, w.Code)
}

var outlookRank = map[Outlook]int{OutlookGood: 2, OutlookDepends: 1, OutlookBad: 0}

// closest returns the verdict on the value that is nearest to being accepted. ok is false
// if there is no value.
func (r Result) closest() (v Verdict, ok bool) {
	for _, other := range r.Verdicts {
		if !ok || other.closer(v) {
			v, ok = other, true
		}
	}
	return v, ok
}
