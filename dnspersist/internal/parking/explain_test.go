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
		acmepersist.ReasonRateLimited: SeverityInfo, acmepersist.ReasonCADown: SeverityInfo, acmepersist.ReasonQueued: SeverityInfo,
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

// A CA that was asked although the record is not right has refused because of that, and what to do is to
// mend the record.
func TestRefusedForTheRecord(t *testing.T) {
	for what, c := range map[string]struct {
		status    propagation.Status
		finding   acmepersist.Finding
		misplaced []string
		code, do  string
	}{
		"absent":    {status: propagation.StatusAbsent, code: "rejected", do: "publish a TXT record at _validation-persist.a.test with this value: v"},
		"wrong":     {propagation.StatusAbsent, acmepersist.Finding{Values: []acmepersist.ValueVerdict{{}}, Code: "wrong_account", Do: "replace it"}, nil, "wrong_account", "replace it"},
		"misplaced": {status: propagation.StatusAbsent, misplaced: []string{"it is there"}, code: "wrong_name", do: "move the TXT record to _validation-persist.a.test"},
		"ready":     {status: propagation.StatusReady, code: "rejected", do: advice[acmepersist.ReasonRejected]},
	} {
		hold := missing("a.test", "v")
		hold.Reason, hold.Watch.Find = acmepersist.ReasonRejected, func(propagation.Report) acmepersist.Finding { return c.finding }
		report := propagation.Report{Name: hold.Record.Name, Status: c.status}
		s := Status{Domain: "a.test", Phase: PhaseHeld, Reason: hold.Reason, Err: hold, Record: hold.Record, Report: &report, hold: hold, Misplaced: c.misplaced}
		if x := s.Explain(); x.Code != c.code || x.Do != c.do || x.Text != errWait.Error() {
			t.Errorf("%s: %+v", what, x)
		}
	}
}
