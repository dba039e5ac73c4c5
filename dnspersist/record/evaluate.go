package record

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Want is what a CA has to find.
type Want struct {
	// IssuerDomainNames are the names under which the CA accepts a record.
	IssuerDomainNames []string
	// AccountURI is compared octet by octet.
	AccountURI string
	// Wildcard is true for a wildcard identifier.
	Wildcard bool
}

// Code says what a value is worth.
type Code string

// Codes of a Verdict.
const (
	// CodeGood: the CA accepts it.
	CodeGood Code = "good"
	// CodeForeign: it is for another CA, or no record of this kind at all.
	CodeForeign Code = "foreign"
	// CodeWrongAccount: it names another account.
	CodeWrongAccount Code = "wrong_account"
	// CodePolicyMissing: policy=wildcard is missing.
	CodePolicyMissing Code = "policy_missing"
	// CodeExpired: persistUntil is past.
	CodeExpired Code = "expired"
	// CodeMalformed: it is for this CA, but breaks the grammar.
	CodeMalformed Code = "malformed"
)

// Verdict is what a CA makes of one value.
type Verdict struct {
	// Text is the value as it stands.
	Text string
	Code Code
	// Reason explains a Code other than CodeGood to a person.
	Reason string
	// Value is what could be read of it.
	Value Value
}

// Result is what a CA makes of all values at a name, in their order.
type Result struct {
	Verdicts []Verdict
}

// Evaluate predicts what a CA makes of the TXT values at a validation name, at the
// given time. One good value is enough, whatever stands beside it.
func Evaluate(txts []string, want Want, now time.Time) Result {
	r := Result{Verdicts: make([]Verdict, 0, len(txts))}
	for _, txt := range txts {
		r.Verdicts = append(r.Verdicts, judge(txt, want, now))
	}
	return r
}

func judge(txt string, want Want, now time.Time) Verdict {
	p, err := Parse(txt)
	v := Verdict{Text: txt, Value: p.Value}
	ours := slices.ContainsFunc(want.IssuerDomainNames, func(n string) bool { return normalizeIssuer(n) == p.IssuerDomainName })
	switch {
	case !ours:
		v.Code, v.Reason = CodeForeign, foreignReason(txt, p, want)
	case err != nil:
		v.Code, v.Reason = CodeMalformed, err.Error()
	case p.AccountURI != want.AccountURI:
		v.Code, v.Reason = CodeWrongAccount, fmt.Sprintf("accounturi is %s, this account is %s", p.AccountURI, want.AccountURI)
	case want.Wildcard && !p.Wildcard:
		v.Code, v.Reason = CodePolicyMissing, "policy=wildcard is missing, the name is a wildcard"
	case p.HasPersistUntil && now.After(p.PersistUntil):
		v.Code, v.Reason = CodeExpired, fmt.Sprintf("persistUntil=%d (%s) is past", p.PersistUntil.Unix(), p.PersistUntil.Format(time.DateTime))
	default:
		v.Code = CodeGood
	}
	return v
}

// Near misses of writing a record, by which a value is not recognized as this CA's.
const (
	reasonQuotes      = "the quotes are part of the value: publish it without them"
	reasonBackslashes = "the semicolons are escaped in the value itself: publish it without the backslashes"
)

// foreignReason names the near misses of writing a record: values that were meant for
// this CA but do not look so to it.
func foreignReason(txt string, p Parsed, want Want) string {
	quoted, escaped := strings.HasPrefix(txt, `"`), strings.Contains(txt, `\;`)
	if quoted || escaped {
		bare := strings.ToLower(strings.TrimLeft(txt, `" `))
		for _, n := range want.IssuerDomainNames {
			switch {
			case !strings.HasPrefix(bare, normalizeIssuer(n)):
			case quoted:
				return reasonQuotes
			default:
				return reasonBackslashes
			}
		}
	}
	switch {
	case p.IssuerDomainName == "":
		return "it names no issuer"
	case !looksLikeName(p.IssuerDomainName):
		return "it is not a record of this kind"
	}
	return "it is for another issuer: " + p.Issuer
}

// looksLikeName reports whether an issuer may be a domain name, and is safe to print.
func looksLikeName(issuer string) bool {
	return strings.Contains(issuer, ".") && len(issuer) <= 253 && !strings.ContainsFunc(issuer, notNameRune)
}

// notNameRune reports whether r cannot stand in a domain name.
func notNameRune(r rune) bool { return r != '.' && (r >= utf8.RuneSelf || !isLDH(byte(r))) }

// Good reports whether the CA accepts the name.
func (r Result) Good() bool {
	return slices.ContainsFunc(r.Verdicts, func(v Verdict) bool { return v.Code == CodeGood })
}

// closeness orders the codes by how little is missing.
var closeness = map[Code]int{
	CodeGood: 6, CodePolicyMissing: 5, CodeExpired: 4, CodeMalformed: 3, CodeWrongAccount: 2, CodeForeign: 1,
}

// Closest returns the verdict on the value that is nearest to being accepted. ok is false
// if there is no value.
func (r Result) Closest() (v Verdict, ok bool) {
	for _, other := range r.Verdicts {
		if !ok || closeness[other.Code] > closeness[v.Code] {
			v, ok = other, true
		}
	}
	return v, ok
}

// Explain says in a few words why no value is good; it is empty if one is.
func (r Result) Explain() string {
	v, ok := r.Closest()
	switch {
	case !ok:
		return "no TXT record"
	case v.Code == CodeGood:
		return ""
	case v.Code == CodeForeign && len(r.Verdicts) > 1:
		return r.explainForeign()
	default:
		return v.Reason
	}
}

// maxIssuersNamed bounds how many issuers an explanation lists: anybody may write them.
const maxIssuersNamed = 5

// explainForeign explains several values of which none is this CA's: a near miss first,
// then whose they are.
func (r Result) explainForeign() string {
	var issuers []string
	for _, v := range r.Verdicts {
		if v.Reason == reasonQuotes || v.Reason == reasonBackslashes {
			return v.Reason
		}
		if name := v.Value.IssuerDomainName; looksLikeName(name) && !slices.Contains(issuers, name) {
			issuers = append(issuers, name)
		}
	}
	switch n := len(issuers); {
	case n == 0:
		return fmt.Sprintf("%d TXT records, none of them of this kind", len(r.Verdicts))
	case n > maxIssuersNamed:
		return fmt.Sprintf("records of other issuers only: %s and %d more", strings.Join(issuers[:maxIssuersNamed], ", "), n-maxIssuersNamed)
	default:
		return "records of other issuers only: " + strings.Join(issuers, ", ")
	}
}
