package publish

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

const (
	// retireAfter is the default of Options.RetireAfter, and interestEvery how often it is noted that
	// a record which was written on demand is wanted.
	retireAfter   = 7 * 24 * time.Hour
	interestEvery = 24 * time.Hour
)

// Need is what a name needs of the values that are published for it.
type Need struct {
	// Requirement is what the CA wants, for all names that share the record.
	Requirement record.Requirement
	// AnyDomain is true if a value has to serve several domains.
	AnyDomain bool
	// Margin is how long before its end a value is followed by another one.
	Margin time.Duration
	// Accepted are the values that the CA has accepted for the account.
	Accepted []string
}

// IsMet reports whether one of the values is all that is needed, for long enough.
func (n Need) IsMet(values []string, now time.Time) bool {
	for _, v := range record.Evaluate(values, n.Requirement, now).Verdicts {
		if n.AnyDomain && !n.Requirement.ServesAnyDomain(v.Value) {
			continue // others share the name
		}
		if v.Outlook == record.OutlookGood && (v.Value.PersistUntil.IsZero() || v.Value.PersistUntil.Sub(now) > n.Margin) {
			return true
		}
	}
	return false
}

// Retire removes the values of ours that nobody wants any more. A value is only removed where
// one that does as much is published, and the CA has accepted that one.
func (k *Keeper) Retire(ctx context.Context, at propagation.Target, published []string, need Need) error {
	entries, err := k.Inventory().At(ctx, at.Name)
	if err != nil {
		return err
	}
	now := time.Now()
	for _, e := range entries {
		if need.IsMet([]string{e.Value}, now) {
			if err := k.noteWanted(ctx, at, e, cmp.Or(k.Options.RetireAfter, retireAfter)/7); err != nil {
				return err
			}
			continue
		}
		if !k.Owns(e) && slices.Contains(published, e.Value) && need.IsMet(published, now) {
			// it does not name the bound account, so nobody can be sure that it is nobody's
			k.Logger.Info("a record that was written for a former account or key is published beside the one in use; remove it by hand if no other Caddy uses that account",
				zap.String("name", at.Name), zap.String("value", e.Value), zap.String("account", e.Account), zap.String("ca", k.identity.CA))
		}
		others := without(published, []string{e.Value})
		if !k.isRetired(e, others, need, now) {
			continue
		}
		done, err := k.Remove(ctx, at, e.Value, func(others []string) bool { return !k.isRetired(e, others, need, now) })
		if errors.Is(err, ErrNeeded) {
			continue
		}
		if err != nil {
			return err
		}
		published = others
		k.Logger.Info("removed a record of ours that nothing needs any more",
			zap.String("name", at.Name), zap.String("value", e.Value), zap.Bool("was_published", done.Gone), zap.String("ca", k.identity.CA))
	}
	return nil
}

// isRetired reports whether a value of ours may go, others being those beside it.
func (k *Keeper) isRetired(e Entry, others []string, need Need, now time.Time) bool {
	if !k.Owns(e) || !e.UnusedFor(cmp.Or(k.Options.RetireAfter, retireAfter), now) || !need.IsMet(others, now) {
		return false
	}
	was, err := record.Parse(e.Value)
	if err != nil {
		return false
	}
	wide := need.Requirement
	wide.Wildcard = wide.Wildcard || was.Wildcard
	if !record.Evaluate(others, wide, now).Good() {
		return false // nothing is narrowed
	}
	ended := !e.EndsAt.IsZero() && now.After(e.EndsAt)
	return ended || slices.ContainsFunc(need.Accepted, func(v string) bool {
		return need.IsMet([]string{v}, now) && slices.Contains(others, v)
	})
}

// NoteInterest notes that the records at a place which were written on demand are wanted: an attempt is
// made after a handshake or a retry, and each with the permission.
func (k *Keeper) NoteInterest(ctx context.Context, at propagation.Target) error {
	entries, err := k.Inventory().known(ctx, at.Name)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.OnDemand {
			continue
		}
		if err := k.noteWanted(ctx, at, e, interestEvery); err != nil {
			return err
		}
	}
	return nil
}

// noteWanted notes that a value of ours is wanted, where that was noted so long ago.
func (k *Keeper) noteWanted(ctx context.Context, at propagation.Target, e Entry, every time.Duration) error {
	now := time.Now()
	if now.Sub(e.WantedAt) < every {
		return nil
	}
	return k.change(at).locked(ctx, func() error {
		entries, err := k.Inventory().At(ctx, at.Name)
		i := slices.IndexFunc(entries, func(o Entry) bool { return o.Value == e.Value })
		if err != nil || i < 0 {
			return err // removed meanwhile
		}
		entries[i].WantedAt = now.UTC()
		return k.Inventory().Note(ctx, entries[i])
	})
}
