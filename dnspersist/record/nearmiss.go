package record

import (
	"fmt"
	"slices"
	"strings"
)

// Near misses of writing a record, by which a value is not recognized as this CA's.
const (
	reasonQuotes      = "the quotes are part of the value: publish it without them"
	reasonBackslashes = "the semicolons are escaped in the value itself: publish it without the backslashes"
	reasonSplit       = "one value is split over two TXT records: publish it as one record, of several strings if it is long"
)

// notOurs says whose a value is that the CA reads over.
func (j *judge) notOurs(txt string, p Parsed, err error) (Code, string) {
	if reason := j.miswritten(txt); reason != "" {
		return CodeForeign, reason
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

// miswritten names values that were meant for this CA but do not look so to it.
func (j *judge) miswritten(txt string) string {
	quoted, escaped := strings.HasPrefix(txt, `"`), strings.Contains(txt, `\;`)
	if !quoted && !escaped {
		return ""
	}
	bare := strings.ToLower(strings.TrimLeft(txt, `" `))
	for _, n := range j.IssuerDomainNames {
		switch {
		case !strings.HasPrefix(bare, normalizeIssuer(n)):
		case quoted:
			return reasonQuotes
		default:
			return reasonBackslashes
		}
	}
	return ""
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
		if first.Outlook != OutlookBad || first.Code == CodeForeign || first.Code == CodeWrongIssuer {
			continue
		}
		for k, second := range r.Verdicts {
			if i == k || second.Code != CodeForeign {
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

// MistakenNames returns where people put the record of an identifier by mistake: the
// star of a wildcard left in the name, the zone appended once more, the label of
// dns-01, the label without its underscore or forgotten.
func MistakenNames(identifier string) []string {
	normal, err := Normalize(identifier)
	if err != nil {
		return nil
	}
	base := Base(normal)
	names := []string{
		Label + ".*." + base, Label + "." + base + "." + base,
		"_acme-challenge." + base, strings.TrimPrefix(Label, "_") + "." + base, base,
	}
	if parent := base; strings.Count(parent, ".") > 1 {
		_, parent, _ = strings.Cut(parent, ".")
		names = append(names, Label+"."+base+"."+parent)
	}
	return slices.DeleteFunc(names, func(n string) bool { return len(n) > 253 })
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

// Explain says in a few words why no value is good; it is empty if one is.
func (r Result) Explain() string {
	v, ok := r.Closest()
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

// explainForeign explains several values of which none is this CA's: a near miss first,
// then whose they are.
func (r Result) explainForeign() string {
	var issuers []string
	for _, v := range r.Verdicts {
		if v.Reason() == reasonQuotes || v.Reason() == reasonBackslashes {
			return v.Reason()
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
