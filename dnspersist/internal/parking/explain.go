package parking

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/foreign"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
)

// Severity is how much somebody has to care about where a domain is.
type Severity int

// Severities, from the lightest.
const (
	// SeverityOK: there is a certificate and the record to renew it by, or an attempt is under way.
	SeverityOK Severity = iota
	// SeverityInfo: it passes by itself, with DNS or time.
	SeverityInfo
	// SeverityWarning: somebody has to act.
	SeverityWarning
	// SeverityError: something is broken, or a certificate is running out.
	SeverityError
)

func (s Severity) String() string {
	return [...]string{"ok", "info", "warning", "error"}[s]
}

// severities are those of the reasons; what is not here is broken.
var severities = map[acmepersist.Reason]Severity{
	acmepersist.ReasonConfirming:  SeverityInfo,
	acmepersist.ReasonPartial:     SeverityInfo,
	acmepersist.ReasonProcessing:  SeverityInfo,
	acmepersist.ReasonRateLimited: SeverityInfo,
	acmepersist.ReasonQueued:      SeverityInfo,
	acmepersist.ReasonCADown:      SeverityInfo,
	acmepersist.ReasonAbsent:      SeverityWarning,
	acmepersist.ReasonWrong:       SeverityWarning,
	acmepersist.ReasonBlocked:     SeverityWarning,
}

// Severity is how much somebody has to care now.
func (s Status) Severity(now time.Time) Severity {
	switch {
	case s.Phase == PhaseFailed, s.IsRunningOut(now):
		return SeverityError
	case s.Phase == PhaseServed && s.Fault != nil:
		return SeverityWarning
	case s.Phase == PhaseServed:
		return SeverityOK
	case s.Phase == PhaseLooking, s.Phase == PhasePublishing, s.Phase == PhaseOrdering:
		if s.Reason == "" {
			return SeverityOK
		}
		return SeverityInfo // it has waited, and may have to go on
	case s.Phase == PhaseWanted:
		return SeverityInfo
	}
	return severityOf(s.hold, s.Reason, now)
}

// SeverityOf is how much somebody has to care about a Hold.
func SeverityOf(h *acmepersist.Hold, now time.Time) Severity { return severityOf(h, h.Reason, now) }

// severityOf is that of a Hold, for a reason that may be more precise than its own.
func severityOf(h *acmepersist.Hold, reason acmepersist.Reason, now time.Time) Severity {
	if h != nil && h.IsRunningOut(now) {
		return SeverityError
	}
	if severity, ok := severities[reason]; ok {
		return severity
	}
	return SeverityError
}

// Explanation is why a domain is where it is. The log, the admin endpoint, the commands, events and
// metrics all have it from here.
type Explanation struct {
	// Code is the most precise word for what is wrong: that of a published value, of DNS, or the reason.
	Code string
	// Text is why there is no certificate, or no new one, in one line.
	Text string
	// Do says what somebody has to do; empty if nothing is.
	Do string
	// Published is what is published, with why it is not enough.
	Published []acmepersist.ValueVerdict
}

// Explain explains the status. Its texts are lines that are fit for a log and a terminal, whatever others have put
// into an error.
func (s Status) Explain() Explanation {
	x := s.explain()
	x.Text, x.Do = foreign.Line(x.Text), foreign.Line(x.Do)
	return x
}

func (s Status) explain() Explanation {
	x := Explanation{Code: string(s.Reason), Text: s.Summary()}
	if s.Err != nil && (s.Phase == PhaseFailed || !s.Reason.IsRecord()) { // what DNS shows is not why
		x.Text = s.Err.Error()
	}
	switch {
	case s.Phase == PhaseFailed:
		x.Code, x.Do = string(PhaseFailed), "see the error; it is tried again by itself"
		return x
	case s.Fault != nil:
		return s.explainFault()
	case s.Reason == "", s.Phase == PhaseServed:
		return x
	}
	if why, ok := recordReasons[s.statusInDNS()]; ok && s.Reason == acmepersist.ReasonRejected {
		s.Reason = why // the CA was asked although the record is not right, which is why it has refused
	}
	x.Do = adviceFor(s)
	if s.hold == nil || s.Report == nil || !s.Reason.IsRecord() {
		return x
	}
	finding := found(s.hold, *s.Report)
	x.Published = finding.Values
	switch way := wayCodes(*s.Report); {
	case len(s.Misplaced) > 0:
		x.Code = string(propagation.CodeWrongName)
		if s.hold.Reason.IsRecord() {
			x.Text = strings.Join(s.Misplaced, "; ")
		}
	case len(finding.Values) > 0:
		x.Code, x.Do = string(finding.Code), finding.Do
	case s.Reason == acmepersist.ReasonBlocked && len(way) > 0:
		x.Code = string(way[0])
	}
	if s.Report.Shadows != "" {
		x.Do = s.Report.Shadows + "; then " + x.Do
	}
	return x
}

// recordReasons are why a domain would wait of whose record DNS shows that.
var recordReasons = map[propagation.Status]acmepersist.Reason{
	propagation.StatusAbsent: acmepersist.ReasonAbsent, propagation.StatusPartial: acmepersist.ReasonPartial, propagation.StatusBlocked: acmepersist.ReasonBlocked,
}

// statusInDNS is what DNS has shown of the record; empty if it was not asked.
func (s Status) statusInDNS() propagation.Status {
	if s.Report == nil {
		return ""
	}
	return s.Report.Status
}

// adviceFor says what to do about a domain that waits, as far as its reason says it.
func adviceFor(s Status) string {
	var report propagation.Report
	if s.Report != nil {
		report = *s.Report
	}
	place, _ := s.Record.AtEnd(report)
	publish := "publish a TXT record at " + place.Place() + " with this value: " + place.Value
	if s.Record.Target != "" && !report.Alias().LeadsTo(s.Record.Target) {
		publish = fmt.Sprintf("let the owner of the domain set a CNAME record at %s that leads to %s", s.Record.Name, s.Record.Target)
	}
	switch s.Reason {
	case acmepersist.ReasonAbsent, acmepersist.ReasonWrong, acmepersist.ReasonEnding:
		if len(s.Misplaced) > 0 {
			return "move the TXT record to " + place.Place()
		}
		return publish
	case acmepersist.ReasonPartial:
		return "wait for the zone transfers; if it lasts, look at the name servers that lack the record: " + strings.Join(report.Lacking(), ", ")
	case acmepersist.ReasonBlocked:
		return "see to it that the name servers answer"
	case acmepersist.ReasonCAA:
		var caa *acmepersist.CAAError
		if errors.As(s.Err, &caa) {
			return caa.Do()
		}
	case acmepersist.ReasonPublish:
		return "see the error, or " + publish
	}
	return advice[s.Reason]
}

// advice is what to do where that does not depend on the record.
var advice = map[acmepersist.Reason]string{
	acmepersist.ReasonBudget:      "correct why the CA has refused the domain; it is asked again by itself",
	acmepersist.ReasonRejected:    "see why the CA has refused the domain",
	acmepersist.ReasonNotOffered:  "choose another CA, or put another issuer behind this one",
	acmepersist.ReasonAccount:     "restore the account, see `caddy dns-persist account`",
	acmepersist.ReasonAccountURI:  "set account_uri to what the CA wants, if that is right",
	acmepersist.ReasonCAA:         "change the CAA record so that the CA may issue",
	acmepersist.ReasonUnsupported: "use another issuer for this domain",
	acmepersist.ReasonCADown:      "nothing; if it lasts, look at your network and the CA's status page",
}
