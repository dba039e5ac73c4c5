package record

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
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
	if len(r.Verdicts) < 2 || len(r.Verdicts) > maxSplitSearch {
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
	return len(issuer) <= 253 && strings.Contains(issuer, ".") && strings.Trim(issuer, lettersDigits+"-.") == ""
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

// Reasons why a CA does not take a value that was meant for it for its own.
const (
	reasonQuotes      = "the quotes are part of the value: publish it without them"
	reasonCurlyQuotes = "curly quotes are part of the value, as word processors make them: publish it without any quotes"
	reasonBackslashes = "the semicolons are escaped in the value itself: publish it without the backslashes"
	reasonSpaces      = "a no-break or invisible space is part of the value, as copying from a web page brings it: type the spaces, or leave them out"
	reasonZoneLine    = "a whole line of a zone file is the value: publish only what is between its quotes"
	reasonCommas      = "commas are where semicolons belong: publish it with semicolons"
	reasonFirst       = "the semicolon after the issuer domain name is missing: publish it with the semicolon"
	reasonNoIssuer    = "the issuer domain name in front is missing: publish it with the name and a semicolon before accounturi"
	reasonCut         = "nothing is behind the issuer domain name: a DNS panel that takes a semicolon for the begin of a comment cuts the value there; put it in quotes in the panel, or write \\; for each semicolon"
	reasonSplit       = "one value is split over two TXT records: publish it as one record, of several strings if it is long"
)

// repair undoes one way to miswrite a value.
type repair struct {
	reason string
	undo   func(j *judge, txt string) string
}

// repairs are tried in this order, each on what those before it have left: a quoted value may
// hold commas as well.
var repairs = []repair{
	{reasonSpaces, func(_ *judge, txt string) string { return mapped(plainSpace, txt) }},
	{reasonCurlyQuotes, func(_ *judge, txt string) string { return mapped(straightQuote, txt) }},
	{reasonZoneLine, func(_ *judge, txt string) string { return afterType(txt) }},
	{reasonQuotes, func(_ *judge, txt string) string { return unquoted(txt) }},
	{reasonBackslashes, func(_ *judge, txt string) string { return strings.ReplaceAll(txt, `\;`, ";") }},
	{reasonCommas, func(_ *judge, txt string) string { return semicolons(txt) }},
	{reasonFirst, func(_ *judge, txt string) string { return firstSemicolon(txt) }},
	{reasonNoIssuer, (*judge).withIssuer},
}

// miswritten explains a value that this CA does not take for its own, or for malformed, and
// would if it were written properly. It is empty for all others. p and err are the results
// of Parse.
func (j *judge) miswritten(txt string, p Parsed, err error) string {
	if err == nil && looksLikeName(p.IssuerDomainName) || !j.mentions(txt) {
		return "" // a proper record of another CA, or something else
	}
	reason := ""
	for _, r := range repairs {
		repaired := r.undo(j, txt)
		if repaired == txt {
			continue
		}
		txt = repaired
		if reason == "" || r.reason != reasonQuotes {
			// the quotes that curly ones or a zone file's line have left are named with these
			reason = join(reason, r.reason)
		}
		p, err := Parse(txt)
		_, ours := j.issuer(p)
		switch {
		case !ours:
		case err == nil:
			return reason
		case isCut(txt, p):
			return join(reason, reasonCut)
		}
	}
	return ""
}

func join(reason, next string) string {
	if reason == "" {
		return next
	}
	return reason + "; " + next
}

// mentions reports whether the value has anything of a record for this CA. Most TXT records
// have not, and looking for ways to read them takes more than judging them.
func (j *judge) mentions(txt string) bool {
	return indexFold(txt, "accounturi") >= 0 ||
		slices.ContainsFunc(j.IssuerDomainNames, func(n string) bool { return indexFold(txt, n) >= 0 })
}

// indexFold is strings.Index that folds ASCII letters.
func indexFold(s, sub string) int {
	for i := 0; i+len(sub) <= len(s); i++ {
		if strings.EqualFold(s[i:i+len(sub)], sub) {
			return i
		}
	}
	return -1
}

// isCut reports whether a value is nothing but an issuer domain name.
func isCut(txt string, p Parsed) bool {
	return p.Issuer != "" && strings.Trim(txt, "; \t") == p.Issuer
}

// mapped is strings.Map on what is meant by txt; what maps to itself stays as it is.
func mapped(mapping func(rune) rune, txt string) string {
	meant := latin(txt)
	if done := strings.Map(mapping, meant); done != meant {
		return done
	}
	return txt
}

// latin reads a value that is not UTF-8 as Windows-1252, of which only quotes and the no-break
// space matter.
func latin(txt string) string {
	if utf8.ValidString(txt) {
		return txt
	}
	var b strings.Builder
	for i := range len(txt) {
		switch c := txt[i]; c {
		case 0x91, 0x92, 0x93, 0x94:
			b.WriteRune('\u201c')
		case 0xa0:
			b.WriteRune('\u00a0')
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// plainSpace makes a space of those that only look like one, and nothing of invisible ones.
func plainSpace(r rune) rune {
	switch {
	case r == '\u00a0', r >= '\u2000' && r <= '\u200a', r == '\u202f', r == '\u205f', r == '\u3000':
		return ' '
	case r == '\u00ad', r >= '\u200b' && r <= '\u200d', r == '\u2060', r == '\ufeff':
		return -1
	}
	return r
}

// straightQuote turns the quotes of word processors into straight ones.
func straightQuote(r rune) rune {
	switch r {
	case '\u2018', '\u2019', '\u201a', '\u201b', '\u201c', '\u201d', '\u201e', '\u201f', '\u00ab', '\u00bb', '\u2039', '\u203a':
		return '"'
	}
	return r
}

// afterType is what follows the type TXT in a line of a zone file.
func afterType(txt string) string {
	i := indexFold(txt, "TXT")
	if i < 0 || i+3 >= len(txt) || i > 0 && trimSpace(txt[i-1:i]) != "" || trimSpace(txt[i+3:i+4]) != "" {
		return txt
	}
	return trimSpace(txt[i+3:])
}

// unquoted joins the character-strings of a value in quotes.
func unquoted(txt string) string {
	bare := strings.TrimSuffix(strings.TrimPrefix(trimSpace(txt), `"`), `"`)
	if len(bare) == len(trimSpace(txt)) {
		return txt
	}
	return strings.ReplaceAll(bare, `" "`, "")
}

// semicolons puts semicolons where there are commas between the parts.
func semicolons(txt string) string {
	if strings.Contains(txt, ";") {
		return txt // an account URL may hold commas
	}
	return strings.ReplaceAll(txt, ",", ";")
}

// firstSemicolon puts one before accounturi, if what is before it does not end with one.
func firstSemicolon(txt string) string {
	i := indexFold(txt, "accounturi")
	if i <= 0 {
		return txt
	}
	before := strings.TrimRight(txt[:i], " \t")
	if before == "" || strings.HasSuffix(before, ";") {
		return txt
	}
	return before + "; " + txt[i:]
}

// withIssuer puts the issuer domain name in front of a value that begins with accounturi. The
// account has to be ours, for without a name the value might be for any CA.
func (j *judge) withIssuer(txt string) string {
	rest := strings.TrimLeft(txt, "; \t")
	if len(j.IssuerDomainNames) == 0 || indexFold(rest, "accounturi") != 0 {
		return txt
	}
	whole := j.IssuerDomainNames[0] + "; " + rest
	if p, err := Parse(whole); err != nil || !j.namesUs(p.AccountURI) {
		return txt
	}
	return whole
}

// Misplacement is a name at which people put the record of a domain by mistake.
type Misplacement struct {
	// Name is where the record may be, without final dot.
	Name string
	// Why is what was mistaken.
	Why string
	// Conclusive is set if any TXT record at Name was meant for the validation name.
	Conclusive bool
}

// misspelled are ways to write Label that were seen, or are near.
var misspelled = []struct{ label, why string }{
	{"validation-persist", "the underscore is missing"},
	{"_validation_persist", "the label has an underscore in place of its hyphen"},
	{"_validationpersist", "the hyphen of the label is missing"},
	{"_validation-presist", "the label is misspelled"}, //nolint:misspell // that is the point
	{"_validate-persist", "the label is misspelled"},
	{"_persist-validation", "the words of the label are in the wrong order"},
}

// Misplacements returns where people put the record of an identifier by mistake: under a
// misspelled label, at the name of dns-01, with the zone appended once more, at the host
// itself, at its "www" or at the domain in place of a name below it. zone is the zone of the
// validation name, without final dot. It is nil for what is not a domain name.
func Misplacements(identifier, zone string) []Misplacement {
	normal, err := Normalize(identifier)
	if err != nil {
		return nil
	}
	base := Base(normal)
	right := Label + "." + base
	all := []Misplacement{{right + "." + zone, "the zone's name was appended twice", true}}
	for _, m := range misspelled {
		all = append(all, Misplacement{m.label + "." + base, m.why, true})
	}
	all = append(all,
		Misplacement{Label + ".*." + base, "the star of the wildcard was left in the name", true},
		Misplacement{"_acme-challenge." + base, "that is the name of the challenge dns-01", false},
		Misplacement{base, "the label " + Label + " before it is missing", false},
		Misplacement{Label + ".www." + base, "that is the name for www." + base, false},
	)
	if _, parent, ok := strings.Cut(base, "."); ok && parent != zone && strings.HasSuffix(parent, "."+zone) {
		all = append(all, Misplacement{Label + "." + parent, "that is the name for " + parent, false})
	}
	if base != zone {
		all = append(all, Misplacement{Label + "." + zone, "that is the name for the domain itself", false})
	}
	return slices.DeleteFunc(all, func(m Misplacement) bool {
		return m.Name == right || len(m.Name) > 253 || m.Name != zone && !strings.HasSuffix(m.Name, "."+zone)
	})
}
