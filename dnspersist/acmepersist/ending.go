package acmepersist

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/foreign"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

// renewalsAhead is how many renewals before a record's end its successor is asked for.
const renewalsAhead = 3

// lastLook bounds the look that only tells when a record ends.
const lastLook = 3 * time.Second

// warnOfExpiry warns if the record of a name with a fresh certificate ends before its
// third renewal from now. Without a Checker nobody has looked which values the CA has accepted: the
// resolvers are asked, now that the certificate is there and waits for nothing.
func (w *siteSession) warnOfExpiry(ctx context.Context, life time.Duration) {
	var values []string
	if checker := w.iss.CAAChecker; w.iss.Checker == nil && checker != nil {
		ctx, cancel := context.WithTimeout(ctx, lastLook)
		defer cancel()
		values = checker.Check(ctx, w.Target(), checker.NewGate()).Values
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
	interval := time.Duration(float64(life) * (1 - w.iss.RenewalWindowRatio))
	if end.IsZero() || end.After(time.Now().Add(renewalsAhead*interval)) {
		return
	}
	w.logger.Warn("the record ends soon; publish its successor beside it, then take it away",
		zap.String("identifier", w.Identifier), zap.String("name", w.Record.Name), zap.String("standing_value", foreign.Text(value)),
		zap.Time("ends", end), zap.Int("days_left", int(time.Until(end).Hours()/24)), zap.Int("renewals_left", int(time.Until(end)/max(interval, time.Second))),
		zap.String("value", w.Record.Value), zap.String("zone_line", w.Record.ZoneLine()))
}
