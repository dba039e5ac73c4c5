package record

import (
	"fmt"
	"slices"
	"strings"
)

// notOurs explains a value that the CA ignores: whose it is, if that is known.
func (j *judge) notOurs(txt string, p Parsed, err error) (Code, string) {
	if reason := j.miswritten(txt, p, err); reason != "" {
		return CodeMiswritten, reason
	}
	switch {
	case p.IssuerDomainName == "":
		return CodeForeign, "it names no issuer"
	case !looksLikeName(p.IssuerDomainName):
		return CodeForeign, "it is not a record of this kind"
	case err != nil:
		return CodeForeign, "it is for another issuer: " + p.Issuer
	case !j.explain:
		return CodeWrongIssuer, ""
	case len(j.IssuerDomainNames) > 0 && j.namesUs(p.AccountURI):
		return CodeWrongIssuer, fmt.Sprintf("it is for the issuer %s, but names this account, whose CA is %s", p.Issuer, strings.Join(j.IssuerDomainNames, " or "))
	}
	return CodeWrongIssuer, "it is for another issuer: " + p.Issuer
}

// maxSplitSearch bounds the search for halves of a value.
const maxSplitSearch = 16

// split reports whether the halves of a good value were published as two records.
func (r Result) split() bool {
	if len(r.Verdicts) < 2 || len(r.Verdicts) > maxSplitSearch || r.judge == nil {
		return false
	}
	j := *r.judge
	for i, first := range r.Verdicts {
		if first.Outlook != OutlookBad || first.Code == CodeForeign || first.Code == CodeMiswritten || first.Code == CodeWrongIssuer {
			continue
		}
		for k, second := range r.Verdicts {
			if i == k || second.Code != CodeForeign && second.Code != CodeMiswritten {
				continue
			}
			for _, whole := range []string{first.Text + second.Text, first.Text + " " + second.Text, first.Text + ";" + second.Text} {
				if v, _ := j.value(whole); v.Outlook == OutlookGood {
					return true
				}
			}
		}
	}
	return false
}

// looksLikeName reports whether an issuer may be a domain name, and is safe to print.
func looksLikeName(issuer string) bool {
	dotted := false
	for i := range len(issuer) {
		if issuer[i] == '.' {
			dotted = true
		} else if !isLDH(issuer[i]) {
			return false
		}
	}
	return dotted && len(issuer) <= 253
}

// Explain returns in a few words why no value is good; it is empty if one is.
func (r Result) Explain() string {
	v, ok := r.closest()
	switch {
	case !ok:
		return "no TXT record"
	case v.Outlook == OutlookGood:
		return ""
	case v.Outlook == OutlookBad && r.split():
		return reasonSplit
	case (v.Code == CodeForeign || v.Code == CodeWrongIssuer) && len(r.Verdicts) > 1:
		return r.explainForeign()
	default:
		return v.Reason()
	}
}

// maxIssuersNamed bounds how many issuers an explanation lists: anybody may write them.
const maxIssuersNamed = 5

// explainForeign explains several values of which none is this CA's: whose they are.
func (r Result) explainForeign() string {
	var issuers []string
	for _, v := range r.Verdicts {
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
