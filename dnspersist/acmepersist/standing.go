package acmepersist

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

// lookPause is the time between two names: there is a day for all of them.
const lookPause = 100 * time.Millisecond

// LookAtNames looks in DNS at the record of every name that has a certificate and was not
// looked at for the given time, by whichever node of a cluster. One that has vanished, is
// missing on a server, was changed or ends soon is logged at once, long before a renewal
// needs it. The CA is asked for nothing but its account.
func (iss *Issuer) LookAtNames(ctx context.Context, every time.Duration) error {
	if iss.Checker == nil {
		return nil
	}
	st := newStore(iss.Storage, iss.CA)
	states, err := st.nameStates(ctx)
	if err != nil {
		return err
	}
	var s *session
	for _, n := range states {
		if len(n.Accepted) == 0 || time.Since(n.LookedAt) < every {
			continue
		}
		life, due := iss.certificateOf(ctx, n.Identifiers)
		if due.IsZero() {
			continue // nobody renews it any more
		}
		if s == nil {
			if s, err = iss.openKnown(ctx); err != nil || s == nil {
				return err
			}
		}
		if err := s.lookAt(ctx, n.Name, every, life, due); err != nil {
			return err
		}
		if err := sleep(ctx, lookPause); err != nil {
			return nil //nolint:nilerr // the configuration has ended
		}
	}
	return nil
}

// openKnown opens a session with the account that is bound; nil if none is, for then
// nothing names it.
func (iss *Issuer) openKnown(ctx context.Context) (*session, error) {
	s, err := iss.open(ctx)
	if err != nil {
		return nil, err
	}
	bound, found, err := s.knownBinding(ctx)
	if err != nil || !found {
		return nil, err
	}
	return s, s.use(s.settlePending(ctx, bound))
}

// certificateOf returns the length of life of the certificate that is renewed first, and
// when that is; zero if none of the names has one that is valid.
func (iss *Issuer) certificateOf(ctx context.Context, identifiers []string) (life time.Duration, due time.Time) {
	for _, id := range identifiers {
		cert := StoredCertificate(ctx, iss.Storage, IssuerKey(iss.CA), id)
		if cert == nil || time.Now().After(cert.NotAfter) {
			continue
		}
		l := cert.NotAfter.Sub(cert.NotBefore)
		at := cert.NotAfter.Add(-time.Duration(float64(l) * iss.windowRatio()))
		if due.IsZero() || at.Before(due) {
			life, due = l, at
		}
	}
	return life, due
}

// lookAt looks at one name, unless another node has done so meanwhile.
func (s *session) lookAt(ctx context.Context, name string, every, life time.Duration, due time.Time) error {
	var state nameState
	mine := false
	err := s.iss.names.update(ctx, s.store, name, func(n *nameState) bool {
		if mine = time.Since(n.LookedAt) >= every; mine {
			n.LookedAt = time.Now().UTC()
		}
		state = *n
		return mine
	})
	if err != nil || !mine {
		return err
	}
	o, err := s.loadOffer(ctx)
	if err != nil {
		return err
	}
	t, err := s.predict(o)
	if err != nil {
		return err
	}
	identifier := state.Identifiers[0]
	if i := slices.IndexFunc(state.Identifiers, record.IsWildcard); i >= 0 {
		identifier = state.Identifiers[i]
	}
	w, err := s.want(ctx, identifier, t)
	if err != nil {
		return err
	}
	gate := propagation.NewGate(s.iss.Grace, s.iss.Settle)
	target := s.target(w, state)
	report := gate.Observe(s.iss.Checker.Look(ctx, target))
	if ctx.Err() != nil {
		return fmt.Errorf("looking at the record of %s: %w", name, context.Cause(ctx))
	}
	if err := s.follow(ctx, &w, report); err != nil {
		return err
	}
	if err := s.refine(&w, report.Values, state, o); err != nil {
		return err
	}
	if p := s.iss.Publishing; p != nil && p.Mode == PublishKeep {
		err := s.keepAt(ctx, w, state, target, report, life)
		if err == nil && report.Status == propagation.StatusAbsent && (w.target == "" || aliasOf(report, name) == w.target) {
			return nil // it stands again
		}
		if err != nil && ctx.Err() == nil {
			s.logger.Error("a record is not kept right; this is tried again with the next look",
				zap.String("name", name), zap.String("ca", s.iss.CA), zap.Error(err))
		}
	}
	return s.report(ctx, w, state, report, life, due)
}

// report says what is wrong with a standing record, daily while it is.
func (s *session) report(ctx context.Context, w wanted, state nameState, r propagation.Report, life time.Duration, due time.Time) error {
	fields := []zap.Field{
		zap.String("name", w.record.Name), zap.Strings("identifiers", state.Identifiers), zap.String("dns", r.Summary()),
		zap.Int("days_left", int(time.Until(due).Hours()/24)), zap.Time("needed_by", due), zap.String("ca", s.iss.CA),
	}
	var standing []string
	for _, a := range state.Accepted {
		standing = append(standing, a.Value)
	}
	switch r.Status {
	case propagation.StatusAbsent, propagation.StatusPartial:
		// nobody is shown a record before the CA has confirmed the account
		if err := s.checkAccount(ctx); err != nil {
			return err
		}
		fields = append(fields, zap.Strings("accepted_values", standing),
			zap.String("value", w.record.Value), zap.String("zone_line", w.record.ZoneLine()))
		if line := w.record.AliasLine(); line != "" {
			fields = append(fields, zap.String("alias_line", line))
		}
		if r.Status == propagation.StatusAbsent {
			s.logger.Error("a record that a certificate is renewed by is gone or was changed; publish it again", fields...)
		} else {
			s.logger.Warn("a record that a certificate is renewed by is not on all name servers", fields...)
		}
	case propagation.StatusBlocked:
		s.logger.Warn("a record that a certificate is renewed by cannot be looked at", fields...)
	default:
		if !slices.ContainsFunc(r.Values, func(v string) bool { return slices.Contains(standing, v) }) {
			s.logger.Info("a record was replaced by another one that is good as well",
				append(fields, zap.String("accepted_values", strings.Join(standing, " | ")))...)
		}
		s.warnOfEnd(w, r.Values, life)
	}
	return nil
}
