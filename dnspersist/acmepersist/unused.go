package acmepersist

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/publish"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

const (
	// interestEvery is how often it is noted that a record which was written on demand is wanted.
	interestEvery = 24 * time.Hour
	// removalsAtOnce is how many records RemoveUnused removes: should it be wrong, somebody sees it
	// in the log before much is gone.
	removalsAtOnce = 100
)

// noteInterest notes that a record which was written on demand is wanted: an attempt is made after a
// handshake or a hand-back, and each with the permission.
func (s *session) noteInterest(ctx context.Context, w wanted, t propagation.Target) error {
	p := s.iss.Publishing
	if !s.iss.OnDemand || p == nil || p.Mode == PublishNever {
		return nil
	}
	at, err := s.place(w, t)
	if err != nil {
		return nil //nolint:nilerr // nothing is written there
	}
	entries, err := s.iss.Inventory().Known(ctx, at.Name)
	if err != nil {
		return err
	}
	now := time.Now()
	for _, e := range entries {
		if e.OnDemand && now.Sub(e.WantedAt) >= interestEvery {
			if err := s.stillWanted(ctx, at, e, now); err != nil {
				return err
			}
		}
	}
	return nil
}

// RemoveUnused removes records that were written on demand, of names that are not managed and have no
// certificate, and that nobody has wanted for the given time, at any node. What it does not come to is
// left for the next time. A file of the inventory that cannot be read is an error that keeps only what it
// lists from being removed.
func (iss *Issuer) RemoveUnused(ctx context.Context, unusedFor time.Duration, managed []string) error {
	entries, unread := iss.Inventory().All(ctx)
	now := time.Now()
	isUnused := func(e publish.Entry) bool {
		return e.OnDemand && now.Sub(later(e.WrittenAt, e.WantedAt)) >= unusedFor
	}
	entries = slices.DeleteFunc(entries, func(e publish.Entry) bool { return !isUnused(e) })
	if len(entries) == 0 {
		return unread
	}
	// those that cannot be removed must not keep the others from being come to
	rand.Shuffle(len(entries), func(i, j int) { entries[i], entries[j] = entries[j], entries[i] })
	s, err := iss.openKnown(ctx)
	if err != nil || s == nil {
		return errors.Join(unread, err)
	}
	names := make(map[string]bool)
	for _, n := range managed {
		if name, err := record.ValidationName(n); err == nil {
			names[name] = true
		}
	}
	serving, removed := iss.serving(), 0
	for _, e := range entries {
		if !s.owns(e) {
			continue
		}
		needed, err := s.isNeeded(ctx, e.Name, names)
		if err != nil {
			return err
		}
		domain, isName := strings.CutPrefix(e.Name, record.Label+".")
		if !isName {
			shared, err := s.store.sharing(ctx, e.Name)
			if err != nil {
				return err
			}
			if needed = needed || len(shared.Domains) == 0; !needed {
				domain = shared.Domains[0]
			}
		}
		if needed {
			continue
		}
		by := serving(domain)
		if by == nil || by.Publishing == nil || by.Publishing.Mode == PublishNever || by.Checker == nil {
			continue // a person may, by unpublish --stale
		}
		if removed++; removed > removalsAtOnce {
			break
		}
		done, err := s.writing(by.Publishing, by.Checker, propagation.Target{Name: e.Name}).remove(ctx, e.Value, func([]string) bool {
			known, err := iss.Inventory().At(ctx, e.Name)
			return err != nil || !slices.ContainsFunc(known, func(o publish.Entry) bool { return o.Value == e.Value && isUnused(o) })
		})
		if errors.Is(err, errStays) {
			continue // somebody has asked for it meanwhile
		}
		if err != nil {
			s.logger.Warn("a record that nobody wants any more could not be removed; this is tried again in a day",
				zap.String("name", e.Name), zap.String("ca", iss.CA), zap.Error(err))
			continue
		}
		s.logger.Info("removed a record that was written on demand: its name has no certificate, and nobody has asked for it for long",
			zap.String("name", e.Name), zap.String("value", e.Value), zap.Time("wanted_at", e.WantedAt), zap.Bool("was_published", done.Gone), zap.String("ca", iss.CA))
		if !isName {
			if left, err := iss.Inventory().At(ctx, e.Name); err == nil && len(left) == 0 {
				if err := s.store.Remove(ctx, s.store.sharingKey(e.Name)); err != nil {
					return err
				}
			}
		}
	}
	return unread
}
