package acmepersist

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/foreign"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/site"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
	"github.com/dnspersist/caddy-dnspersist/internal/walltime"
)

// lookAt looks at one name.
func (s *session) lookAt(ctx context.Context, known state.Name, l *look) error {
	o, err := s.iss.ca.LoadOffer(ctx)
	if err != nil {
		return err
	}
	t, err := s.Terms(o)
	if err != nil {
		return err
	}
	w, err := s.site(ctx, strictest(known.Identifiers), t)
	if err != nil {
		return err
	}
	w.Known.Identifiers = known.Identifiers
	l.siteSession = w
	for _, a := range known.Accepted {
		l.accepted, l.accountsAccepted = append(l.accepted, a.Value), append(l.accountsAccepted, a.Account)
	}
	if s.iss.Checker == nil {
		return l.reportChange(ctx, l.accepted)
	}
	if err := l.observe(ctx, known); err != nil {
		return err
	}
	if err := w.Follow(ctx, s.iss.Checker, l.report); err != nil {
		return err
	}
	if err := w.Refine(l.report.Values, o); err != nil {
		return err
	}
	if l.report.Status == propagation.StatusAbsent {
		l.finding = site.Find(w.Record, w.Want, l.report)
	}
	if keeps(s.iss.Publishing) {
		err := w.keep(ctx, l.report, l.life)
		if err == nil && l.report.Status == propagation.StatusAbsent && (w.Delegated == "" || l.report.Alias().LeadsTo(w.Delegated)) {
			return s.store.UpdateName(ctx, known.Name, func(n *state.Name) bool { // it is published again
				n.LookedStatus = propagation.StatusReady
				return true
			})
		}
		if err != nil && ctx.Err() == nil {
			s.logger.Error("a record is not kept right; this is tried again with the next look",
				zap.String("name", known.Name), zap.String("ca", s.iss.CA), zap.Error(err))
		}
		l.changed = false // what the CA asks for is published
	}
	if !l.isNews && !l.changed {
		return nil
	}
	return l.log(ctx)
}

// look is what was found at a name.
type look struct {
	*siteSession
	// accepted are the values that the CA has accepted last.
	accepted []string
	// accountsAccepted are the accounts that these were accepted of.
	accountsAccepted []string
	report           propagation.Report
	// finding is what is published where none of it is the record.
	finding Finding
	// before is what the last look has shown, of whichever node.
	before propagation.Status
	// life is that of the certificate that is renewed first, and due is when.
	life time.Duration
	due  time.Time
	// changed says that it is the first look since the CA asks for other records.
	changed bool
	// every is the time between two looks at a record that is as it should be, and between two reports of one
	// that is not; isNews is true if it is time for one.
	every  time.Duration
	isNews bool
	// onDemand counts what is logged of domains on demand.
	onDemand *atomic.Int64
}

// observe looks at DNS, and notes what it has shown.
func (l *look) observe(ctx context.Context, known state.Name) error {
	gate := propagation.NewGate(l.iss.Grace, l.iss.Settle)
	l.report = gate.Observe(l.iss.Checker.Look(ctx, l.Target()))
	if ctx.Err() != nil {
		return fmt.Errorf("looking at the record of %s: %w", known.Name, context.Cause(ctx))
	}
	l.before = known.LookedStatus
	return l.store.UpdateName(ctx, known.Name, func(n *state.Name) bool {
		before := *n
		if n.LookedStatus = l.report.Status; n.LookedStatus != before.LookedStatus || n.LookedSince.IsZero() {
			n.LookedSince = walltime.Now().UTC()
		}
		// the look that is a day later may come a little sooner
		if l.isNews = n.LookedStatus != before.LookedStatus || walltime.Since(n.ReportedAt) > l.every-l.every/12; l.isNews {
			n.ReportedAt = walltime.Now().UTC()
		}
		if l.report.Status != propagation.StatusBlocked {
			n.EndsAt = endOf(record.Evaluate(l.report.Values, l.Want, walltime.Now()))
		}
		return l.isNews || !n.EndsAt.Equal(before.EndsAt)
	})
}

// write logs what is wrong with a record. For a domain on demand somebody has to act who does not read this log.
func (l look) write(level zapcore.Level, message string, fields ...zap.Field) {
	if l.iss.OnDemand {
		level = zapcore.DebugLevel
		l.onDemand.Add(1)
	}
	l.logger.Log(level, message, fields...)
}

// fields are those of a log entry about it.
func (l look) fields(more ...zap.Field) []zap.Field {
	return append([]zap.Field{
		zap.Strings("domains", l.Known.Identifiers), zap.Int("days_left", int(time.Until(l.due).Hours()/24)), zap.Time("needed_by", l.due),
	}, more...)
}

// newNotice is a Notice about it.
func (l look) newNotice(kind NoticeKind) Notice {
	n := l.siteSession.newNotice(kind)
	n.Report, n.NeededBy = l.report, l.due
	return n
}

// log logs what is wrong with a published record, daily while it is.
func (l look) log(ctx context.Context) error {
	w, accepted := l.siteSession, foreign.Values(l.accepted)
	fields := l.fields(zap.String("dns", l.report.Summary()), zap.String("ca", w.iss.CA))
	name := zap.String("name", w.Record.Name)
	switch l.report.Status {
	case propagation.StatusAbsent, propagation.StatusPartial:
		// nobody is shown a record before the CA has confirmed the account
		if err := w.confirmAccount(ctx); err != nil {
			return err
		}
		fields = append(append(w.Record.LogFields(l.report), fields...), zap.Strings("accepted_values", accepted))
		if l.report.Status == propagation.StatusAbsent {
			l.write(zapcore.ErrorLevel, "a record that a certificate is renewed by is gone or was changed; publish it again", fields...)
			n := l.newNotice(NoticeGone)
			n.Finding = l.finding
			w.iss.Observer.Noticed(n)
		} else {
			l.write(zapcore.WarnLevel, "a record that a certificate is renewed by is not on all name servers", fields...)
		}
	case propagation.StatusBlocked:
		l.write(zapcore.WarnLevel, "a record that a certificate is renewed by cannot be looked at", append(fields, name)...)
		return l.reportChange(ctx, l.accepted)
	default:
		if !slices.ContainsFunc(l.report.Values, func(v string) bool { return slices.Contains(l.accepted, v) }) {
			w.logger.Info("a record was replaced by another one that is good as well",
				append(fields, name, zap.String("accepted_values", strings.Join(accepted, " | ")))...)
		}
		if record.Evaluate(l.report.Values, w.Want, time.Now()).Good() {
			n := l.newNotice(NoticeFound)
			n.WasMissing = l.before == propagation.StatusAbsent
			w.iss.Observer.Noticed(n)
		}
		w.warnOfEnd(l.report.Values, l.life)
		return l.reportChange(ctx, l.report.Values)
	}
	return nil
}

// reportChange logs which record to publish where the CA asks for others than before: once, for it may
// go on to accept the published ones.
func (l look) reportChange(ctx context.Context, published []string) error {
	if !l.changed || record.Evaluate(published, l.Want, time.Now()).Good() {
		return nil
	}
	if err := l.confirmAccount(ctx); err != nil {
		return err
	}
	l.iss.Observer.Noticed(l.newNotice(NoticeNeeded))
	l.write(zapcore.WarnLevel, "the CA asks for another record than before: publish this TXT record beside the published ones before the certificate is renewed",
		append(l.Record.LogFields(l.report), l.fields(zap.Strings("published_values", foreign.Values(published)), zap.String("ca", l.iss.CA))...)...)
	return nil
}

// warnOfExpiry warns if the record of a name with a fresh certificate ends before its
// third renewal from now. Without a Checker nobody has looked which values the CA has accepted: the
// resolvers are asked, now that the certificate is there and waits for nothing.
func (w *siteSession) warnOfExpiry(ctx context.Context, life time.Duration) {
	var values []string
	if checker := w.iss.CAAChecker; w.iss.Checker == nil && checker != nil {
		ctx, cancel := context.WithTimeout(ctx, lastLook)
		defer cancel()
		values = checker.NewGate().Observe(checker.Look(ctx, w.Target())).Values
	} else {
		known, err := w.store.Name(ctx, w.Record.Name)
		if err != nil {
			return
		}
		for _, a := range known.Accepted {
			values = append(values, a.Value)
		}
	}
	w.warnOfEnd(values, life)
}

// warnOfEnd says that all the values that a CA may accept end before the third renewal
// from now.
func (w *siteSession) warnOfEnd(values []string, life time.Duration) {
	if keeps(w.iss.Publishing) {
		return // it is followed without anybody's doing
	}
	var end time.Time
	var value string
	for _, v := range record.Evaluate(values, w.Want, time.Now()).Verdicts {
		switch {
		case v.Outlook == record.OutlookBad:
		case v.Value.PersistUntil.IsZero():
			return
		case v.Value.PersistUntil.After(end):
			end, value = v.Value.PersistUntil, v.Text
		}
	}
	if !w.iss.endsSoon(end, life) {
		return
	}
	interval := w.iss.renewedEvery(life)
	n := w.newNotice(NoticeEnding)
	n.Value, n.Ends = value, end
	w.iss.Observer.Noticed(n)
	level := zapcore.WarnLevel
	if w.iss.OnDemand {
		level = zapcore.DebugLevel
	}
	w.logger.Log(level, "the record ends soon; publish its successor beside it, then take it away",
		zap.String("name", w.Record.Name), zap.String("value", w.Record.Value), zap.String("domain", w.Identifier), zap.String("published_value", foreign.Text(value)),
		zap.Time("ends", end), zap.Int("days_left", int(time.Until(end).Hours()/24)), zap.Int("renewals_left", int(time.Until(end)/max(interval, time.Second))))
}
