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
				return "the quotes are part of the value: publish it without them"
			default:
				return "the semicolons are escaped in the value itself: publish it without the backslashes"
			}
		}
	}
	switch {
	case p.IssuerDomainName == "":
		return "it names no issuer"
	case !strings.Contains(p.IssuerDomainName, ".") || len(p.IssuerDomainName) > 253 || strings.ContainsFunc(p.IssuerDomainName, notNameRune):
		return "it is not a record of this kind"
	}
	return "it is for another issuer: " + p.Issuer
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
		return fmt.Sprintf("%d TXT records, none of them for this CA", len(r.Verdicts))
	default:
		return v.Reason
	}
}
