package acmepersist

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

// hostTypes are what somebody else has at a name who lives there: a record of ours beside them is none
// of its business, and takes away what a wildcard answers with.
var hostTypes = []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeMX, dns.TypeNS, dns.TypeHTTPS}

// ownLabel reports whether the record goes to a label that the owner of the domain has chosen, which
// somebody else may have as well. The one that is made from the domain nobody has.
func (s *session) ownLabel(w wanted) bool {
	d := s.iss.Delegation
	return d != nil && d.Name == "" && w.target != "" && w.target != d.Target(w.identifier)
}

// taken says what others have at the label to which a name leads, where nothing of ours was written
// yet; empty if nothing.
func (s *session) taken(ctx context.Context, checker *propagation.Checker, w wanted) (why string, err error) {
	if !s.ownLabel(w) {
		return "", nil
	}
	if entries, err := s.iss.Inventory().Known(ctx, w.target); err != nil || len(entries) > 0 {
		return "", err
	}
	at := propagation.Target{Name: w.target, Host: placeHost(w.target)}
	has, err := checker.Answers(ctx, at, hostTypes...)
	if err != nil {
		return "", fmt.Errorf("what others have at %s is not known, so nothing was written: %w", w.target, err)
	}
	if len(has) > 0 {
		return fmt.Sprintf("others have %s there", strings.Join(has, ", ")), nil
	}
	shown, err := standing(ctx, checker, at, at.Name)
	if err != nil {
		return "", fmt.Errorf("what is published at %s is not known, so nothing was written: %w", w.target, err)
	}
	if slices.ContainsFunc(shown.Values(), func(v string) bool { _, err := record.Parse(v); return err != nil }) {
		return "others have TXT there, which is no validation record", nil
	}
	return "", nil
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
	w.record, err = s.recordFor(*w, w.terms.dialect, w.domain())
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
		return &PublishError{Name: w.target, RetryAt: time.Now().Add(publishRetry), Err: err}
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
