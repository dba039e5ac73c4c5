package acmepersist

import (
	"context"
	"errors"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/publish"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

// retireAfter is how long no node has wanted a value of ours before it is removed: nodes
// with different configurations must not take each other's values away in turn.
const retireAfter = 7 * 24 * time.Hour

// keep keeps a name's record right: one that is gone, ends, or is not what the configuration
// and the CA ask for by now is followed by another one first, and removed once that one is
// in use. What stands and is better than it has to be stays.
func (s *session) keep(ctx context.Context, w wanted, known state.Name, t propagation.Target, r propagation.Report, life time.Duration) error {
	if r.Status == propagation.StatusBlocked || r.Status == propagation.StatusPartial {
		return nil // a change is on its way, or nothing is known
	}
	if err := s.endWrites(ctx, s.iss.Publishing, s.iss.Checker, t); err != nil {
		return err
	}
	enduring := s.enduring(w, life)
	if !enduring(r.Values) {
		// the account check of section 4.5 comes before each write
		if err := s.checkAccount(ctx); err != nil {
			return err
		}
		end, err := s.iss.publisher.begin(ctx, t.Name)
		if err != nil {
			return err
		}
		defer end()
		err = s.write(ctx, s.iss.Publishing, w, t, enduring)
		return s.iss.publisher.ended(t.Name, err, orDefault(s.iss.Publishing.Retry, publishRetry))
	}
	return s.retire(ctx, w, known, t, r.Values, enduring)
}

// keeps reports whether the issuer keeps records right by itself.
func (iss *Issuer) keeps() bool { return iss.Publishing != nil && iss.Publishing.Mode == PublishKeep }

// keepAt is keep for a name whose record may stand elsewhere.
func (s *session) keepAt(ctx context.Context, w wanted, known state.Name, t propagation.Target, r propagation.Report, life time.Duration) error {
	if w.disputed != nil {
		return nil // a change is on its way
	}
	if err := s.claim(ctx, s.iss.Checker, &w); err != nil {
		return err
	}
	at, err := s.place(w, t)
	if err != nil {
		return err
	}
	if w.target != "" {
		// also while the owner's CNAME is missing: it is to find the record when it comes
		r = propagation.NewGate(s.iss.Grace, s.iss.Settle).Observe(s.iss.Checker.Look(ctx, at))
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	return s.keep(ctx, w, known, at, r, life)
}

// enduring says whether values have one that is all that is wanted, for long enough.
func (s *session) enduring(w wanted, life time.Duration) func(values []string) bool {
	want := w.want
	want.Wildcard = want.Wildcard || w.wide
	margin := s.margin(life)
	anyDomain := w.any && w.terms.dialect == record.DialectHashed
	return func(values []string) bool {
		for _, v := range record.Evaluate(values, want, time.Now()).Verdicts {
			if anyDomain && !want.ServesAnyDomain(v.Value) {
				continue // others share the name
			}
			if v.Outlook == record.OutlookGood && (v.Value.PersistUntil.IsZero() || time.Until(v.Value.PersistUntil) > margin) {
				return true
			}
		}
		return false
	}
}

// margin is how long before its end a record is followed: three renewals and a third of its
// life, but not most of that, for then a new one would be followed at once.
func (s *session) margin(life time.Duration) time.Duration {
	renewals := time.Duration(renewalsAhead * float64(life) * (1 - s.iss.windowRatio()))
	whole := s.iss.Publishing.PersistFor
	if whole <= 0 {
		return renewals
	}
	return min(max(renewals, whole/3), whole/3*2)
}

// retire removes the values of ours that nobody wants any more. A value is only removed where
// one that does as much stands, and the CA has accepted that one.
func (s *session) retire(ctx context.Context, w wanted, known state.Name, t propagation.Target, values []string, enduring func([]string) bool) error {
	inventory := s.iss.Inventory()
	entries, err := inventory.At(ctx, t.Name)
	if err != nil {
		return err
	}
	now := time.Now()
	rest := values
	for _, e := range entries {
		if enduring([]string{e.Value}) {
			if now.Sub(e.WantedAt) > orDefault(s.iss.Publishing.RetireAfter, retireAfter)/7 {
				if err := s.stillWanted(ctx, t, e, now); err != nil {
					return err
				}
			}
			continue
		}
		if !s.owns(e) && slices.Contains(rest, e.Value) && enduring(rest) {
			// it does not name the bound account, so nobody can be sure that it is nobody's
			s.logger.Info("a record that was written for a former account or key stands beside the one in use; remove it by hand if no other Caddy uses that account",
				zap.String("name", t.Name), zap.String("value", e.Value), zap.String("account", e.Account), zap.String("ca", s.iss.CA))
		}
		others := slices.DeleteFunc(slices.Clone(rest), func(v string) bool { return v == e.Value })
		if !s.retired(w, known, e, others, enduring, now) {
			continue
		}
		done, err := s.writing(s.iss.Publishing, s.iss.Checker, t).remove(ctx, e.Value, func(others []string) bool {
			return !s.retired(w, known, e, others, enduring, now)
		})
		if errors.Is(err, errStays) {
			continue
		}
		if err != nil {
			return err
		}
		rest = others
		s.logger.Info("removed a record of ours that nothing needs any more",
			zap.String("name", t.Name), zap.String("value", e.Value), zap.Bool("stood", done.Gone), zap.String("ca", s.iss.CA))
	}
	return nil
}

// stillWanted notes that a value of ours is wanted.
func (s *session) stillWanted(ctx context.Context, t propagation.Target, e publish.Entry, now time.Time) error {
	inventory := s.iss.Inventory()
	return s.writing(s.iss.Publishing, s.iss.Checker, t).locked(ctx, func() error {
		entries, err := inventory.At(ctx, t.Name)
		i := slices.IndexFunc(entries, func(o publish.Entry) bool { return o.Value == e.Value })
		if err != nil || i < 0 {
			return err // unpublished meanwhile
		}
		entries[i].WantedAt = now.UTC()
		return inventory.Note(ctx, entries[i])
	})
}

// retired reports whether a value of ours may go, others being what stands beside it.
func (s *session) retired(w wanted, known state.Name, e publish.Entry, others []string, enduring func([]string) bool, now time.Time) bool {
	if !s.owns(e) {
		return false
	}
	if now.Sub(later(e.WrittenAt, e.WantedAt)) < orDefault(s.iss.Publishing.RetireAfter, retireAfter) || !enduring(others) {
		return false
	}
	was, err := record.Parse(e.Value)
	if err != nil {
		return false
	}
	wide := w.want
	wide.Wildcard = wide.Wildcard || was.Wildcard
	if !record.Evaluate(others, wide, now).Good() {
		return false // nothing is narrowed
	}
	ended := !e.EndsAt.IsZero() && now.After(e.EndsAt)
	return ended || slices.ContainsFunc(known.Accepted, func(a state.AcceptedValue) bool {
		return a.Account == e.Account && enduring([]string{a.Value}) && slices.Contains(others, a.Value)
	})
}
