package parking

import (
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
)

// lookedBy is an account, with what its looks at records are about.
type lookedBy struct {
	ca, account string
	onDemand    bool
}

// looked is what the last looks for an account have found wrong with records, by domain.
type looked struct {
	configuration *Configuration
	faults        map[string]*acmepersist.RecordFault
}

// lookedFaults are what looks have found wrong, by whoever has looked.
type lookedFaults map[lookedBy]looked

// Looked takes all that the last looks at records have found wrong by which certificates of an account are
// renewed, those of other nodes included: what is not among them is as it should be.
func (r *Registry) Looked(c *Configuration, ca, account string, onDemand bool, faults []acmepersist.RecordFault) {
	r.mu.Lock()
	defer r.unlock()
	key := lookedBy{ca, account, onDemand}
	before := r.looked[key].faults
	for other, l := range r.looked {
		if other.ca == ca && l.configuration.ended { // its domains may have another account now
			delete(r.looked, other)
		}
	}
	if delete(r.looked, key); len(faults) == 0 || c.ended {
		return
	}
	now := looked{c, make(map[string]*acmepersist.RecordFault, len(faults))}
	for _, f := range faults {
		for _, domain := range f.Domains {
			now.faults[domain] = &f
			if known := before[domain]; f.Finding.Values == nil && f.Report == nil && known != nil && known.LookedAt.Equal(f.LookedAt) {
				now.faults[domain] = known // it was this process that has looked
			}
		}
	}
	r.looked[key] = now
}

// addTo adds what is wrong with the record by which the certificate is renewed, where nothing else is waited for.
func (l lookedFaults) addTo(s *Status) {
	if s.Phase != PhaseServed || s.Issuer != "" && s.Issuer != acmepersist.IssuerKey(s.CA) {
		return
	}
	for key, by := range l {
		if f := by.faults[s.Domain]; f != nil && key.ca == s.CA {
			s.SetFault(f)
		}
	}
}

// SetFault has a domain that is served have something wrong with the record by which its certificate is renewed.
func (s *Status) SetFault(f *acmepersist.RecordFault) {
	s.Fault, s.Reason, s.Record, s.Report, s.LookedAt, s.Next = f, f.Reason, f.Record, f.Report, f.LookedAt, f.NeededBy
	if s.Since = f.Since; s.Since.IsZero() {
		s.Since = f.LookedAt
	}
}

// explainFault explains what is wrong with the record of a domain that is served.
func (s Status) explainFault() Explanation {
	x := Explanation{Code: string(s.Reason), Do: adviceFor(s), Published: s.Fault.Finding.Values}
	switch s.Reason {
	case acmepersist.ReasonAbsent, acmepersist.ReasonWrong:
		x.Text = "the record that the certificate is renewed by is gone or was changed"
		if s.Record == (acmepersist.Record{}) {
			x.Do = "publish the TXT record at " + s.ValidationName() + " again, see `caddy dns-persist check " + s.Domain + "`"
		} else if s.Record.Target == "" || s.Report == nil || s.Report.Alias().LeadsTo(s.Record.Target) {
			x.Do = "publish it again before the certificate is renewed: " + x.Do
		}
	case acmepersist.ReasonPartial:
		x.Text = "the record that the certificate is renewed by is not on all name servers"
	case acmepersist.ReasonBlocked:
		x.Text = "the record that the certificate is renewed by cannot be looked at"
	case acmepersist.ReasonEnding:
		x.Text = "the record that the certificate is renewed by ends on " + s.Fault.Ends.UTC().Format(time.RFC3339)
		x.Do = "publish its successor beside it, see `caddy dns-persist records " + s.Domain + "`; then take it away"
		if s.Record.Value != "" {
			x.Do = "publish its successor beside it, then take it away: " + adviceFor(s)
		}
	}
	if len(x.Published) > 0 {
		x.Code, x.Do = string(s.Fault.Finding.Code), s.Fault.Finding.Do
	}
	if s.Report != nil {
		x.Text += ": " + s.Report.Summary()
	}
	return x
}
