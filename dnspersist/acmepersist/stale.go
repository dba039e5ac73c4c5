package acmepersist

import (
	"context"
	"slices"
	"strings"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/publish"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

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

// Leftovers lists what the inventory has at names that are neither managed nor have a
// certificate that is still valid (those of on-demand TLS are in no configuration). Only
// values for the bound account are among them. What cannot be read of the inventory is an error beside
// them.
func (iss *Issuer) Leftovers(ctx context.Context, managed []string) ([]*Leftover, error) {
	s, _, _, err := iss.openToTell(ctx)
	if err != nil {
		return nil, err
	}
	needed := make(map[string]bool)
	for _, n := range managed {
		if name, err := record.ValidationName(n); err == nil {
			needed[name] = true
		}
	}
	entries, unread := iss.Inventory().All(ctx)
	var all []*Leftover
	for _, e := range entries {
		if !s.owns(e) {
			continue
		}
		needed, err := s.isNeeded(ctx, e.Name, needed)
		if err != nil {
			return nil, err
		}
		if needed {
			continue
		}
		all = append(all, &Leftover{e, s, iss})
	}
	return all, unread
}

// isNeeded reports whether a domain whose record stands at a name is managed or has a valid
// certificate.
func (s *session) isNeeded(ctx context.Context, name string, managed map[string]bool) (bool, error) {
	domains := []string{strings.TrimPrefix(name, record.Label+".")}
	if domains[0] == name { // the target of a delegation
		shared, err := s.store.sharing(ctx, name)
		if err != nil || shared.More || shared.Incomplete || len(shared.Domains) == 0 {
			return true, err // not all of the domains are known
		}
		domains = shared.Domains
	}
	for _, d := range domains {
		if managed[record.Label+"."+d] {
			return true, nil
		}
		if _, due := s.iss.certificateOf(ctx, []string{d, "*." + d}); !due.IsZero() {
			return true, nil
		}
	}
	return false, nil
}

// owns reports whether an entry names the bound account, or recomputes to it.
func (s *session) owns(e publish.Entry) bool {
	return e.Account == s.account.Location && (e.Thumbprint == s.thumbprint || slices.Contains(s.earlierThumbprints, e.Thumbprint))
}

// Configured is the publishing of the issuer's configuration, nil if it has no provider.
func (l *Leftover) Configured() *Publishing { return l.by.Publishing }

// Unpublish removes the value, and forgets it.
func (l *Leftover) Unpublish(ctx context.Context, p *Publishing) (publish.Removed, error) {
	checker := l.session.iss.Checker
	if checker == nil {
		checker = propagation.NewChecker(propagation.Config{Grace: l.session.iss.Grace, Settle: l.session.iss.Settle, Logger: l.session.iss.Logger})
	}
	return l.session.writing(p, checker, propagation.Target{Name: l.Name}).remove(ctx, l.Value, nil)
}
