package acmepersist

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/foreign"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

// renewalsAhead is how many renewals before a record's end its successor is asked for.
const renewalsAhead = 3

// lastLook bounds the look that only tells when a record ends.
const lastLook = 3 * time.Second

// warnOfExpiry says that the record of a name with a fresh certificate ends before its
// third renewal from now.
func (s *session) warnOfExpiry(ctx context.Context, w wanted, life time.Duration) {
	known, err := s.store.Name(ctx, w.record.Name)
	if err != nil {
		return
	}
	s.warnOfEnd(w, s.lastSeen(ctx, w, known), life)
}

// lastSeen returns the values that the CA has accepted. Without a Checker nobody has looked what
// those were: the resolvers are asked, now that the certificate is there and waits for nothing.
func (s *session) lastSeen(ctx context.Context, w wanted, known state.Name) []string {
	if s.iss.Checker == nil && s.iss.CAAChecker != nil {
		ctx, cancel := context.WithTimeout(ctx, lastLook)
		defer cancel()
		return s.iss.CAAChecker.Check(ctx, s.target(w, known), s.iss.CAAChecker.NewGate()).Values
	}
	var values []string
	for _, a := range known.Accepted {
		values = append(values, a.Value)
	}
	return values
}

// warnOfEnd says that all the values that a CA may accept end before the third renewal
// from now.
func (s *session) warnOfEnd(w wanted, values []string, life time.Duration) {
	if s.iss.keeps() {
		return // it is followed without anybody's doing
	}
	var end time.Time
	var value string
	for _, v := range record.Evaluate(values, w.want, time.Now()).Verdicts {
		switch {
		case v.Outlook == record.OutlookBad:
		case v.Value.PersistUntil.IsZero():
			return
		case v.Value.PersistUntil.After(end):
			end, value = v.Value.PersistUntil, v.Text
		}
	}
	interval := time.Duration(float64(life) * (1 - s.iss.windowRatio()))
	if end.IsZero() || end.After(time.Now().Add(renewalsAhead*interval)) {
		return
	}
	s.logger.Warn("the record ends soon; publish its successor beside it, then take it away",
		zap.String("identifier", w.identifier), zap.String("name", w.record.Name), zap.String("standing_value", foreign.Text(value)),
		zap.Time("ends", end), zap.Int("days_left", int(time.Until(end).Hours()/24)), zap.Int("renewals_left", int(time.Until(end)/max(interval, time.Second))),
		zap.String("value", w.record.Value), zap.String("zone_line", w.record.ZoneLine()))
}
