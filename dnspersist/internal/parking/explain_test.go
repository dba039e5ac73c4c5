package parking

import (
	"testing"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
)

// A wait that passes by itself alarms nobody, unless a certificate is running out meanwhile; whoever has
// to act is told what to do.
func TestSeverity(t *testing.T) {
	now := time.Now()
	for reason, want := range map[acmepersist.Reason]Severity{
		acmepersist.ReasonConfirming: SeverityInfo, acmepersist.ReasonPartial: SeverityInfo, acmepersist.ReasonProcessing: SeverityInfo,
		acmepersist.ReasonRateLimited: SeverityInfo, acmepersist.ReasonCADown: SeverityInfo,
		acmepersist.ReasonAbsent: SeverityWarning, acmepersist.ReasonWrong: SeverityWarning, acmepersist.ReasonBlocked: SeverityWarning,
		acmepersist.ReasonPublish: SeverityError, acmepersist.ReasonBudget: SeverityError, acmepersist.ReasonRejected: SeverityError,
		acmepersist.ReasonNotOffered: SeverityError, acmepersist.ReasonAccount: SeverityError, acmepersist.ReasonAccountURI: SeverityError,
		acmepersist.ReasonCAA: SeverityError, acmepersist.ReasonUnsupported: SeverityError,
	} {
		hold := missing("a.test", "v")
		hold.Reason = reason
		report := propagation.Report{Name: hold.Record.Name, Status: propagation.StatusAbsent}
		s := Status{Domain: "a.test", Phase: PhaseHeld, Reason: reason, Record: hold.Record, Report: &report, hold: hold}
		if got := s.Severity(now); got != want {
			t.Errorf("%s is of severity %s, want %s", reason, got, want)
		}
		if x := s.Explain(); want > SeverityInfo && x.Do == "" || x.Code == "" || x.Text == "" {
			t.Errorf("%s is explained as %+v", reason, x)
		}
		hold.Urgent = now.Add(-time.Second)
		if got := s.Severity(now); got != SeverityError {
			t.Errorf("%s while the certificate runs out is of severity %s", reason, got)
		}
	}
	for _, phase := range []Phase{PhaseServed, PhaseOrdering, PhaseLooking, PhasePublishing} {
		if got := (Status{Phase: phase}).Severity(now); got != SeverityOK {
			t.Errorf("%s is of severity %s", phase, got)
		}
	}
}
