package acmepersist

import (
	"context"
	"slices"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/internal/walltime"
)

// RecordFault is what the last look at a record has found wrong by which certificates are renewed. Nothing is
// lost yet: the certificates are valid.
type RecordFault struct {
	// Domains are those of the certificates.
	Domains []string
	// Reason is ReasonAbsent, ReasonWrong, ReasonPartial, ReasonBlocked or ReasonEnding.
	Reason Reason
	// Record is what has to be published, as far as it is known: of what another process has looked at it is
	// the one that the CA has last accepted.
	Record Record
	// Since is since when it is so, LookedAt when it was looked at last, NeededBy when a certificate is renewed by it.
	Since, LookedAt, NeededBy time.Time
	// Ends is when the last of the published values ends; zero if one never does.
	Ends time.Time
	// Report is what DNS has shown; nil if another process has looked, and for domains on demand.
	Report *propagation.Report
	// Finding is what is published instead.
	Finding Finding
}

// reasonsOfLooks are why a record is not as it should be, by what a look has found.
var reasonsOfLooks = map[propagation.Status]Reason{
	propagation.StatusAbsent: ReasonAbsent, propagation.StatusPartial: ReasonPartial, propagation.StatusBlocked: ReasonBlocked,
}

// faultOf is what the last look at a name has found wrong, as far as storage has it; nil if nothing is, or if none of
// the domains has a certificate to renew.
func (cfg *Config) faultOf(ctx context.Context, n state.Name, domains []string) *RecordFault {
	if len(n.Accepted) == 0 || n.Accepted[0].At.After(n.LookedAt) { // the CA has found it since
		return nil
	}
	f := &RecordFault{Domains: domains, Reason: reasonsOfLooks[n.LookedStatus], Since: n.LookedSince, LookedAt: n.LookedAt, Ends: n.EndsAt}
	if f.Reason == "" && n.EndsAt.IsZero() {
		return nil
	}
	life, due := cfg.certificateOf(ctx, domains)
	switch {
	case due.IsZero():
		return nil
	case f.Reason == "" && (keeps(cfg.Publishing) || !cfg.endsSoon(n.EndsAt, life)):
		return nil
	case f.Reason == "":
		f.Reason, f.Since = ReasonEnding, time.Time{}
	default:
		f.Record = Record{Name: n.Name, Target: n.Target, Value: n.Accepted[0].Value}
	}
	f.NeededBy = due
	return f
}

// endsSoon reports whether a record ends before the third renewal from now of a certificate with a length of life.
func (cfg *Config) endsSoon(end time.Time, life time.Duration) bool {
	return !end.IsZero() && !end.After(walltime.Now().Add(renewalsAhead*cfg.renewedEvery(life)))
}

// renewedEvery is the time between two renewals.
func (cfg *Config) renewedEvery(life time.Duration) time.Duration {
	return time.Duration(float64(life) * (1 - cfg.RenewalWindowRatio))
}

// RememberRecords calls the Observer with what storage has of the looks at published records, as LookAtNames does after
// it has looked: a process that begins knows then what an earlier one has found.
func (iss *Issuer) RememberRecords(ctx context.Context, every time.Duration) error {
	names, err := iss.ca.Store.Names(ctx)
	if err != nil {
		return err
	}
	(&lookRun{every: every, serving: servingBy(iss)}).observe(ctx, iss.Observer, names)
	return nil
}

// observe calls the Observer with what was last seen of the records at the names.
func (r *lookRun) observe(ctx context.Context, o Observer, names []state.Name) {
	for onDemand, seen := range r.records(ctx, names) {
		o.Records(onDemand, seen)
	}
}

// note notes what a look has shown.
func (r *lookRun) note(name string, l *look) {
	if l.siteSession == nil || l.report.Status == "" {
		return
	}
	f := RecordFault{Report: &l.report, Finding: l.finding}
	if slices.ContainsFunc(l.accountsAccepted, func(account string) bool { return account == l.account.URL }) {
		f.Record = l.Record // the CA knows the account
	}
	if l.iss.OnDemand {
		f.Report = nil // there may be very many
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.shown == nil {
		r.shown = make(map[string]RecordFault)
	}
	r.shown[name] = f
}

// fault is what is wrong with the record at a name; nil if nothing is.
func (r *lookRun) fault(ctx context.Context, n state.Name, domains []string) *RecordFault {
	f := r.serving(strictest(domains)).faultOf(ctx, n, domains)
	if f == nil {
		return nil
	}
	if shown, ok := r.shown[n.Name]; ok {
		if shown.Record != (Record{}) {
			f.Record = shown.Record
		}
		f.Report, f.Finding = shown.Report, shown.Finding
		if f.Reason == ReasonAbsent && len(f.Finding.Values) > 0 {
			f.Reason = ReasonWrong
		}
	}
	return f
}
