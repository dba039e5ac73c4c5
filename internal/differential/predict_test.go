package differential

import (
	"slices"
	"strings"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

// Outlooks of a prediction.
const (
	outlookGood    = "good"
	outlookBad     = "bad"
	outlookDepends = "depends" // on the CA
)

// prediction is what package record says about a set.
type prediction struct {
	outlook string
	// errorTypes are what a CA that says no may report.
	errorTypes []string
	verdicts   []record.Verdict
}

// predict is the only place that asks package record.
//
// TODO: it makes up an outlook of its own from two readings of the values, that of
// Pebble and that of Boulder, until record.Result has one.
func predict(texts []string, want record.Want, now time.Time) prediction {
	var strict, lenient []string
	for _, text := range texts {
		if !spelledOddly(text, want) {
			strict = append(strict, text)
		}
		lenient = append(lenient, relax(text))
	}
	one, other := record.Evaluate(strict, want, now), record.Evaluate(lenient, want, now)
	p := prediction{verdicts: record.Evaluate(texts, want, now).Verdicts, outlook: outlookDepends}
	if one.Good() == other.Good() {
		p.outlook = outlookBad
		if one.Good() {
			p.outlook = outlookGood
		}
	}
	for _, r := range []record.Result{one, other} {
		if t := errorType(r); !r.Good() && !slices.Contains(p.errorTypes, t) {
			p.errorTypes = append(p.errorTypes, t)
		}
	}
	return p
}

func errorType(r record.Result) string {
	if slices.ContainsFunc(r.Verdicts, func(v record.Verdict) bool { return v.Code == record.CodeMalformed }) {
		return "malformed"
	}
	return "unauthorized"
}

// spelledOddly reports whether the issuer is one of this CA's only to a CA that
// normalizes it: Pebble compares it exactly.
func spelledOddly(text string, want record.Want) bool {
	p, _ := record.Parse(text)
	return !slices.Contains(want.IssuerDomainNames, p.Issuer) && slices.Contains(want.IssuerDomainNames, p.IssuerDomainName)
}

// relax removes what Boulder overlooks: unknown tags that were there before, and the
// zero time of Go as the end.
func relax(text string) string {
	parts := strings.Split(text, ";")
	seen := make(map[string]bool)
	kept := parts[:1]
	for _, part := range parts[1:] {
		tag, value, ok := strings.Cut(strings.Trim(part, " \t"), "=")
		tag, value = strings.ToLower(strings.Trim(tag, " \t")), strings.Trim(value, " \t")
		known := tag == "accounturi" || tag == "policy" || tag == "persistuntil"
		repeated := ok && tag != "" && !known && seen[tag] && !strings.ContainsFunc(value, func(r rune) bool { return r < '!' || r > '~' })
		zero := tag == "persistuntil" && strings.HasPrefix(value, "-") && strings.TrimLeft(value[1:], "0") == "62135596800"
		if seen[tag] = true; !repeated && !zero {
			kept = append(kept, part)
		}
	}
	return strings.Join(kept, ";")
}
