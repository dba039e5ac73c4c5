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

// removalsAtOnce is how many records RemoveUnused removes: should it be wrong, somebody sees it
// in the log before much is gone.
const removalsAtOnce = 100

// Leftover is a value that was written for a name which needs no certificate any more.
type Leftover struct {
	publish.Entry
	session *session
	// by is the issuer whose provider removes it.
	by *Issuer
}

// By has the provider of another issuer with the same account remove the value, where several
// have one.
func (l *Leftover) By(iss *Issuer) { l.by = iss }

// Configured is the publishing of the issuer's configuration, nil if it has no provider.
func (l *Leftover) Configured() *Publishing { return l.by.Publishing }

// Unpublish removes the value, and forgets it.
func (l *Leftover) Unpublish(ctx context.Context, p *Publishing) (publish.Removed, error) {
	checker := l.session.iss.Checker
	if checker == nil {
		checker = propagation.NewChecker(propagation.Config{Grace: l.session.iss.Grace, Settle: l.session.iss.Settle, Logger: l.session.iss.Logger})
	}
	return l.session.keeper(p, checker).Remove(ctx, propagation.Target{Name: l.Name}, l.Value, nil)
}

// Leftovers lists what the inventory has at names that are neither managed nor have a
// certificate that is still valid (those of on-demand TLS are in no configuration). Only
// values for the bound account are among them. What cannot be read of the inventory is an error beside
// them.
func (iss *Issuer) Leftovers(ctx context.Context, managed []string) ([]*Leftover, error) {
	s, _, _, err := iss.openToTell(ctx)
	if err != nil {
		return nil, err
	}
	entries, unread := iss.Inventory().All(ctx)
	keeper, names := s.keeper(nil, nil), validationNames(managed)
	var all []*Leftover
	for _, e := range entries {
		if !keeper.Owns(e) {
			continue
		}
		switch domain, err := s.unneeded(ctx, e.Name, names); {
		case err != nil:
			return nil, err
		case domain != "":
			all = append(all, &Leftover{e, s, iss})
		}
	}
	return all, unread
}

// validationNames are those of identifiers, as a set.
func validationNames(identifiers []string) map[string]bool {
	names := make(map[string]bool)
	for _, id := range identifiers {
		if name, err := record.ValidationName(id); err == nil {
			names[name] = true
		}
	}
	return names
}

// unneeded returns a domain that the record at a name was written for, if none of its domains is managed or
// has a valid certificate; empty if one does, or if not all of them are known.
func (s *session) unneeded(ctx context.Context, name string, managed map[string]bool) (domain string, err error) {
	domains := []string{strings.TrimPrefix(name, record.Label+".")}
	if domains[0] == name { // the target of a delegation
		shared, err := s.store.Target(ctx, name)
		if err != nil || shared.More || shared.Incomplete || len(shared.Domains) == 0 {
			return "", err
		}
		domains = shared.Domains
	}
	for _, d := range domains {
		if managed[record.Label+"."+d] {
			return "", nil
		}
		if _, due := s.iss.certificateOf(ctx, []string{d, "*." + d}); !due.IsZero() {
			return "", nil
		}
	}
	return domains[0], nil
}

// RemoveUnused removes records that were written on demand, of names that are not managed and have no
// certificate, and that nobody has wanted for the given time, at any node. What it does not come to is
// left for the next time. A file of the inventory that cannot be read is an error that keeps only what it
// lists from being removed.
func (iss *Issuer) RemoveUnused(ctx context.Context, unusedFor time.Duration, managed []string) error {
	entries, unread := iss.Inventory().All(ctx)
	isUnused := func(e publish.Entry) bool { return e.OnDemand && e.UnusedFor(unusedFor, time.Now()) }
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
	keeper, names, serving, removed := s.keeper(nil, nil), validationNames(managed), iss.serving(), 0
	for _, e := range entries {
		if !keeper.Owns(e) {
			continue
		}
		domain, err := s.unneeded(ctx, e.Name, names)
		if err != nil {
			return err
		}
		if domain == "" {
			continue
		}
		by := serving(domain)
		if by == nil || !publishes(by.Publishing) || by.Checker == nil {
			continue // a person may, by unpublish --stale
		}
		if removed++; removed > removalsAtOnce {
			break
		}
		if err := s.removeUnused(ctx, by, e, isUnused); err != nil {
			return err
		}
	}
	return unread
}

// removeUnused removes one record with the provider of an issuer, unless it is used meanwhile.
func (s *session) removeUnused(ctx context.Context, by *Issuer, e publish.Entry, isUnused func(publish.Entry) bool) error {
	inventory := s.iss.Inventory()
	done, err := s.keeper(by.Publishing, by.Checker).Remove(ctx, propagation.Target{Name: e.Name}, e.Value, func([]string) bool {
		known, err := inventory.At(ctx, e.Name)
		return err != nil || !slices.ContainsFunc(known, func(o publish.Entry) bool { return o.Value == e.Value && isUnused(o) })
	})
	if errors.Is(err, publish.ErrNeeded) {
		return nil
	}
	if err != nil {
		s.logger.Warn("a record that nobody wants any more could not be removed; this is tried again in a day",
			zap.String("name", e.Name), zap.String("ca", s.iss.CA), zap.Error(err))
		return nil
	}
	s.logger.Info("removed a record that was written on demand: its name has no certificate, and nobody has asked for it for long",
		zap.String("name", e.Name), zap.String("value", e.Value), zap.Time("wanted_at", e.WantedAt), zap.Bool("was_published", done.Gone), zap.String("ca", s.iss.CA))
	if strings.HasPrefix(e.Name, record.Label+".") {
		return nil
	}
	if left, err := inventory.At(ctx, e.Name); err != nil || len(left) > 0 {
		return nil //nolint:nilerr // it is not known that the target has no record
	}
	return s.store.ForgetTarget(ctx, e.Name)
}
