package acmepersist

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// What the CA has refused a name with outlives the process and its log, and is part of the wait that follows.
func TestTheCAsAnswerIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrial(t)
		r.knowsTheCA()
		r.dns.set(wwwName, wwwValue)
		r.ca.verdict = "unauthorized"
		at := time.Now()
		hold := r.holds(ReasonRejected)
		if hold.Answer == nil || !strings.Contains(hold.Answer.Text, "no record that fits") || hold.Answer.At.Sub(at) > time.Minute {
			t.Fatalf("the answer is %+v", hold.Answer)
		}
		r.Issuer = New(r.Config) // the process has ended
		hold = r.holds(ReasonBudget)
		if hold.Answer == nil || !strings.Contains(hold.Error(), "no record that fits") {
			t.Errorf("after a restart the answer is %+v in %v", hold.Answer, hold)
		}
		remembered, err := r.Remembered(t.Context(), []string{"www.example.test", "other.example.test"})
		if err != nil {
			t.Fatal(err)
		}
		if m := remembered[0]; m.Reason != ReasonBudget || !m.Until.Equal(hold.Until) || m.Answer == nil || *m.Answer != *hold.Answer {
			t.Errorf("storage has %+v", m)
		}
		if m := remembered[1]; m.Reason != "" || m.Certificate != nil || m.Answer != nil {
			t.Errorf("of a name that was never tried storage has %+v", m)
		}
		time.Sleep(time.Until(hold.Until))
		r.ca.verdict = "valid"
		r.succeeds()
		if n := r.name(); n.Answer != nil {
			t.Errorf("after the CA has accepted it the answer is %+v", n.Answer)
		}
	})
}

// An order that the CA is at work on is known to whoever looks into storage.
func TestRememberedOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTrial(t)
		r.knowsTheCA()
		r.hasCertificate(time.Hour, 30*24*time.Hour)
		r.dns.set(wwwName, wwwValue)
		r.ca.verdict = "pending"
		r.holds(ReasonProcessing)
		remembered, err := r.Remembered(t.Context(), []string{"www.example.test"})
		if err != nil {
			t.Fatal(err)
		}
		m := remembered[0]
		if m.Reason != ReasonProcessing || m.Since.IsZero() || m.Certificate == nil || !m.Due.Before(m.Urgent) || !m.Urgent.Before(m.Certificate.NotAfter) {
			t.Errorf("storage has %+v", m)
		}
	})
}
