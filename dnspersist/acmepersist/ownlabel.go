package acmepersist

import (
	"context"
	"errors"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
)

// ownLabel reports whether the record goes to a label that the owner of the domain has chosen, which
// somebody else may have as well. The one that is made from the domain nobody has.
func (s *session) ownLabel(w wanted) bool {
	d := s.iss.Delegation
	return d != nil && d.Name == "" && w.target != "" && w.target != d.Target(w.identifier)
}

// taken returns what others have at the label to which a name leads, where nothing of ours was written
// yet; empty if nothing.
func (s *session) taken(ctx context.Context, checker *propagation.Checker, w wanted) (why string, err error) {
	if !s.ownLabel(w) {
		return "", nil
	}
	return s.keeper(nil, checker).Taken(ctx, propagation.Target{Name: w.target, Host: placeHost(w.target)})
}

// isFree reports whether the label to which a name leads is known to be nobody else's.
func (s *session) isFree(ctx context.Context, checker *propagation.Checker, w wanted) bool {
	why, err := s.taken(ctx, checker, w)
	return why == "" && err == nil
}

// yield gives up a label: the name is asked for at its own.
func (s *session) yield(w *wanted, why string) (err error) {
	w.foreign, w.why, w.any = w.target, why, false
	w.target = s.iss.Delegation.Target(w.identifier)
	w.record, err = s.recordFor(*w, w.terms.Dialect, w.domain())
	return err
}

// claim makes sure, before a record is written, that its place may be used, and notes who uses it.
func (s *session) claim(ctx context.Context, checker *propagation.Checker, w *wanted) error {
	if w.target == "" || w.foreign != "" {
		return nil
	}
	why, err := s.taken(ctx, checker, *w)
	switch {
	case err != nil:
		return &PublishError{Name: w.target, RetryAt: time.Now().Add(time.Minute), Err: err}
	case why != "":
		err := s.store.UpdateName(ctx, w.record.Name, func(n *state.Name) bool {
			known := n.Target == w.target
			if known {
				n.Target = "" // others have come since
			}
			return known
		})
		return errors.Join(err, s.yield(w, why))
	}
	return s.joinAt(ctx, w)
}
