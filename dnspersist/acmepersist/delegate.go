package acmepersist

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

// Delegation says where records stand in place of the validation names: the owner of a domain
// sets a CNAME once, and what it leads to is in a zone of ours. One of the fields is set. The
// CA has to follow CNAMEs.
type Delegation struct {
	// Zone is a name below which each domain has a label of its own, which need not be a zone
	// apex: record.DelegationLabel.
	Zone string
	// OwnLabels lets the CNAME of a domain lead to another label below Zone, so that several names
	// may share one.
	OwnLabels bool
	// Name is one name for the records of all domains.
	Name string
}

// Target is where the owner of an identifier's validation name is asked to point it, without
// final dot. The identifier is normalized, see record.Normalize.
func (d *Delegation) Target(identifier string) string {
	if d.Name != "" {
		return d.Name
	}
	return record.DelegationLabel(record.Base(identifier)) + "." + d.Zone
}

// covers tells to which targets of a CNAME an identifier's record may go. They come from somebody
// else's zone: only the label of the identifier's own name is nobody else's, and what could not
// stand in a zone file as it is no tool is to be given.
func (d *Delegation) covers(identifier string) func(target string) bool {
	return func(target string) bool {
		switch {
		case target == d.Target(identifier):
			return true
		case d.Name != "" || !d.OwnLabels:
			return false
		}
		label, ok := strings.CutSuffix(target, "."+d.Zone)
		normal, err := record.Normalize(target)
		return ok && err == nil && normal == target && !strings.ContainsAny(label, "*.") &&
			!strings.HasPrefix(label, "_") && !record.IsDelegationLabel(label)
	}
}

// ForeignAliasError says that the validation name leads elsewhere than it should.
type ForeignAliasError struct {
	// Name is the validation name, Alias what it leads to, Wanted what it should.
	Name, Alias, Wanted string
	// Why says what keeps its record from Alias, if that is a label of ours; else it is empty.
	Why string
}

func (e *ForeignAliasError) Error() string {
	why := "where no record of ours is published"
	if e.Why != "" {
		why = "where no record is published for it, for " + e.Why
	}
	return fmt.Sprintf("%s is an alias (CNAME) of %s, %s: let the owner of the domain change it to %s", e.Name, e.Alias, why, e.Wanted)
}

// leadsTo is where the record of an identifier belongs whose validation name has that alias: the
// first target that is covered. A wildcard counts if it leads exactly to what the owner is asked
// for: an exact CNAME takes its place otherwise. It is empty if the alias leads to nothing of ours.
func (d *Delegation) leadsTo(a propagation.Alias, identifier string) string {
	switch a.Kind {
	case propagation.AliasSet:
		if i := slices.IndexFunc(a.Targets, d.covers(identifier)); i >= 0 {
			return a.Targets[i]
		}
	case propagation.AliasWildcard:
		if target := d.Target(identifier); a.LeadsTo(target) {
			return target
		}
	}
	return ""
}

// delegate works out where the record of a name stands, from what is known of earlier looks.
func (s *session) delegate(ctx context.Context, w *wanted, validationName string) error {
	d := s.iss.Delegation
	if d == nil {
		return nil
	}
	known := ""
	if d.OwnLabels {
		n, err := s.store.Name(ctx, validationName)
		if err != nil {
			return err
		}
		known = n.Target
	}
	own := d.Target(w.identifier)
	if known != own && d.covers(w.identifier)(known) {
		if why, err := s.pointTo(ctx, w, known); why == "" || err != nil {
			return err
		}
	}
	_, err := s.pointTo(ctx, w, own)
	return err
}

// pointTo takes a target, and applies for whom else a record is published there. If that keeps the record
// of this name from it, why says so, and nothing is taken.
func (s *session) pointTo(ctx context.Context, w *wanted, target string) (why string, err error) {
	shared, err := s.store.Target(ctx, target)
	if err != nil {
		return "", err
	}
	return s.share(w, target, shared), nil
}

// share fits what is wanted to those who share the target, or says why it cannot be among them.
func (s *session) share(w *wanted, target string, shared state.Target) (why string) {
	d, domain := s.iss.Delegation, record.Base(w.identifier)
	switch {
	case d.Name != "":
		w.any = true // the operator says so
	case target == d.Target(w.identifier):
		w.any = false
	default:
		w.any = shared.IsShared(domain)
		if shared.IsStranger(domain) {
			if why := s.wouldWiden(*w, shared); why != "" {
				return why
			}
		}
	}
	w.target = target
	w.wide = w.wide || shared.Wildcard && s.iss.Policy != PolicyExact
	return ""
}

// wouldWiden says what a stranger to a label would have its record allow that it does not allow now.
// Whoever knows the label of another domain may lead a CNAME to it.
func (s *session) wouldWiden(w wanted, shared state.Target) string {
	switch {
	case w.wide && !shared.Wildcard:
		return "the record of " + shared.Domains[0] + " there is not widened to policy=wildcard for another domain"
	case !w.any && w.terms.Dialect == record.DialectHashed:
		return "the record of " + shared.Domains[0] + " there is not made one for any domain"
	}
	return ""
}

// heedAlias heeds the CNAME that a look has found.
func (s *session) heedAlias(ctx context.Context, w *wanted, r propagation.Report) error {
	d := s.iss.Delegation
	if d == nil {
		return nil
	}
	alias := r.Alias()
	target := d.leadsTo(alias, w.identifier)
	w.foreign, w.why, w.disputed = "", "", nil
	switch {
	case alias.Kind == propagation.AliasNotAgreed:
		w.disputed = &propagation.AliasError{Alias: alias}
		return nil
	case target == "" && alias.Kind == propagation.AliasSet:
		w.foreign = alias.Targets[0]
		return nil
	case target == "" || target == w.target:
		return nil
	}
	why, err := s.pointTo(ctx, w, target)
	if err != nil {
		return err
	}
	if why != "" {
		w.foreign, w.why = target, why
		return nil
	}
	w.record, err = s.recordFor(*w, w.terms.Dialect, w.domain())
	return err
}

// follow is heedAlias, and notes where the name leads, unless others have that label, and that it uses
// what stands there.
func (s *session) follow(ctx context.Context, checker *propagation.Checker, w *wanted, r propagation.Report) error {
	if s.iss.Delegation == nil {
		return nil
	}
	before := w.target
	if err := s.heedAlias(ctx, w, r); err != nil || w.foreign != "" || w.disputed != nil {
		return err
	}
	isReady := r.Status == propagation.StatusReady
	if w.target != before && (isReady || s.isFree(ctx, checker, *w)) {
		err := s.store.UpdateName(ctx, w.record.Name, func(n *state.Name) bool {
			n.Target = w.target
			return true
		})
		if err != nil {
			return err
		}
	}
	if !isReady || !r.Alias().LeadsTo(w.target) {
		return nil
	}
	return s.joinAt(ctx, w)
}

// joinAt notes that the name's record is published at its target: names that share one get a record that
// serves all.
func (s *session) joinAt(ctx context.Context, w *wanted) error {
	shared, err := s.store.JoinTarget(ctx, w.target, record.Base(w.identifier), w.wide)
	if err != nil {
		return err
	}
	if why := s.share(w, w.target, shared); why != "" { // another one has come first
		return s.yield(w, why)
	}
	w.record, err = s.recordFor(*w, w.terms.Dialect, w.domain())
	return err
}

// place is where the record is to be written, as something to look for.
func (s *session) place(w wanted, t propagation.Target) (propagation.Target, error) {
	switch {
	case w.target == "":
		return t, nil
	case w.foreign != "":
		return t, &ForeignAliasError{w.record.Name, w.foreign, w.target, w.why}
	case w.disputed != nil:
		return t, w.disputed
	}
	return propagation.Target{Name: w.target, Host: placeHost(w.target), Accept: t.Accept, Weigh: t.Weigh}, nil
}

// placeHost is from where the zone of a target is found: above it, for it may not exist yet,
// but not from a top-level domain.
func placeHost(target string) string {
	if _, above, ok := strings.Cut(target, "."); ok && strings.Contains(above, ".") {
		return above
	}
	return target
}

// elsewhere reports whether a name leads to another target than an attempt has applied:
// then another attempt can publish there.
func (s *session) elsewhere(w wanted, seen propagation.Report) func(propagation.Report) bool {
	d, p := s.iss.Delegation, s.iss.Publishing
	if d == nil || p == nil || p.Mode == PublishNever {
		return nil
	}
	applied := w.target
	if w.foreign != "" {
		applied = w.foreign
	} else if s.ownersTurn(w, seen) {
		applied = ""
	}
	return func(r propagation.Report) bool {
		target := d.leadsTo(r.Alias(), w.identifier)
		return target != "" && target != applied
	}
}
