package site

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

// mostNamed is how many values an advice quotes, and mostQuoted how much of each, in octets.
const (
	mostNamed  = 3
	mostQuoted = 300
)

// Finding is what is published at a validation name where none of it is the record.
type Finding struct {
	// Values are the values with what the CA makes of them.
	Values []ValueVerdict
	// Do says what to do.
	Do string
}

// ValueVerdict is what the CA makes of one value.
type ValueVerdict struct {
	Value   string         `json:"value"`
	Code    record.Code    `json:"code"`
	Outlook record.Outlook `json:"outlook"`
	Reason  string         `json:"reason,omitempty"`
}

// Find explains a report on a name whose record is r. There is nothing to find where no value
// is published, or one may be good: the record counts as absent beside such a one only if the CA has refused it.
func Find(r Record, want record.Requirement, report propagation.Report) Finding {
	result := record.Evaluate(report.Values, want, time.Now())
	isRefused := result.Outlook() == record.OutlookDepends && report.Status == propagation.StatusAbsent
	if len(result.Verdicts) == 0 || result.Outlook() != record.OutlookBad && !isRefused {
		return Finding{}
	}
	f := Finding{Do: Mend(r.ZoneLine(), result)}
	for _, v := range result.Verdicts {
		f.Values = append(f.Values, ValueVerdict{v.Text, v.Code, v.Outlook, v.Reason()})
	}
	return f
}

// Mend says what to do about published values none of which is the record, a line of a zone
// file: what was meant to be it is replaced, and what others have is left alone.
func Mend(line string, result record.Result) string {
	var near, reasons []string
	for _, v := range result.Verdicts {
		if !v.IsNearMiss() {
			continue
		}
		near = append(near, quoted(v.Text))
		if reason := v.Reason(); reason != "" && !slices.Contains(reasons, reason) {
			reasons = append(reasons, reason)
		}
	}
	if len(near) == 0 {
		return fmt.Sprintf("publish %s, beside what is published; %s", line, result.Explain())
	}
	what := "the value " + near[0]
	if len(near) > 1 {
		what = "the values " + strings.Join(near[:min(len(near), mostNamed)], ", ")
		if more := len(near) - mostNamed; more > 0 {
			what += fmt.Sprintf(" and %d more", more)
		}
	}
	return fmt.Sprintf("replace %s by %s; %s", what, line, strings.Join(reasons[:min(len(reasons), mostNamed)], "; "))
}

// quoted is a foreign value for a sentence.
func quoted(value string) string {
	if len(value) <= mostQuoted {
		return strconv.Quote(value)
	}
	cut := mostQuoted
	for cut > 0 && !utf8.RuneStart(value[cut]) {
		cut--
	}
	return strconv.Quote(value[:cut]) + "…"
}

// Moved returns the advice to move a record that was found at another name, if it was.
func Moved(r Record, found []propagation.Diagnostic) string {
	i := slices.IndexFunc(found, func(d propagation.Diagnostic) bool { return d.Code == propagation.CodeWrongName && d.Place != "" })
	if i < 0 {
		return ""
	}
	return fmt.Sprintf("move the TXT record from %s to %s", found[i].Place, r.Place())
}
