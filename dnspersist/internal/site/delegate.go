package site

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/publish"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

// Delegation says where records are published in place of the validation names: the owner of a domain
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
// be in a zone file as it is no tool is to be given.
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

// LeadsTo is where the record of an identifier belongs whose validation name has that alias: the
// first target that is covered. A wildcard counts if it leads exactly to what the owner is asked
// for: an exact CNAME takes its place otherwise. It is empty if the alias leads to nothing of ours.
func (d *Delegation) LeadsTo(a propagation.Alias, identifier string) string {
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

// delegate works out where the record of a name is published, from what is known of earlier looks.
func (w *Site) delegate(ctx context.Context) error {
	d := w.Delegation
	if d == nil {
		return nil
	}
	known := w.Known.Target
	own := d.Target(w.Identifier)
	if d.OwnLabels && known != own && d.covers(w.Identifier)(known) {
		if why, err := w.pointTo(ctx, known); why == "" || err != nil {
			return err
		}
	}
	_, err := w.pointTo(ctx, own)
	return err
}

// pointTo takes a target, and applies for whom else a record is published there. If that keeps the record
// of this name from it, why says so, and nothing is taken.
func (w *Site) pointTo(ctx context.Context, target string) (why string, err error) {
	shared, err := w.Store.Target(ctx, target)
	if err != nil {
		return "", err
	}
	return w.share(target, shared), nil
}

// share fits what is wanted to those who share the target, or says why it cannot be among them.
func (w *Site) share(target string, shared state.Target) (why string) {
	d, domain := w.Delegation, record.Base(w.Identifier)
	switch {
	case d.Name != "":
		w.Any = true // the operator says so
	case target == d.Target(w.Identifier):
		w.Any = false
	default:
		w.Any = shared.IsShared(domain)
		if shared.IsStranger(domain) {
			if why := w.wouldWiden(shared); why != "" {
				return why
			}
		}
	}
	w.Delegated = target
	w.Wide = w.Wide || shared.Wildcard && w.Policy != PolicyExact
	return ""
}

// wouldWiden says what a stranger to a label would have its record allow that it does not allow now.
// Whoever knows the label of another domain may lead a CNAME to it.
func (w *Site) wouldWiden(shared state.Target) string {
	switch {
	case w.Wide && !shared.Wildcard:
		return "the record of " + shared.Domains[0] + " there is not widened to policy=wildcard for another domain"
	case !w.Any && w.Terms.Dialect == record.DialectHashed:
		return "the record of " + shared.Domains[0] + " there is not made one for any domain"
	}
	return ""
}

// ApplyAlias applies the CNAME that a look has found.
func (w *Site) ApplyAlias(ctx context.Context, r propagation.Report) error {
	d := w.Delegation
	if d == nil {
		return nil
	}
	alias := r.Alias()
	target := d.LeadsTo(alias, w.Identifier)
	w.Foreign, w.Why, w.Disputed = "", "", nil
	switch {
	case alias.Kind == propagation.AliasNotAgreed:
		w.Disputed = &propagation.AliasError{Alias: alias}
		return nil
	case target == "" && alias.Kind == propagation.AliasSet:
		w.Foreign = alias.Targets[0]
		return nil
	case target == "" || target == w.Delegated:
		return nil
	}
	why, err := w.pointTo(ctx, target)
	if err != nil {
		return err
	}
	if why != "" {
		w.Foreign, w.Why = target, why
		return nil
	}
	w.Record, err = w.RecordFor(w.Terms.Dialect, w.Domain())
	return err
}

// Follow is applyAlias, and notes where the name leads, unless others have that label, and that it uses
// what is published there.
func (w *Site) Follow(ctx context.Context, checker *propagation.Checker, r propagation.Report) error {
	if w.Delegation == nil {
		return nil
	}
	before := w.Delegated
	if err := w.ApplyAlias(ctx, r); err != nil || w.Foreign != "" || w.Disputed != nil {
		return err
	}
	isReady := r.Status == propagation.StatusReady
	free := isReady
	if w.Delegated != before && !isReady {
		why, err := w.Taken(ctx, checker)
		free = why == "" && err == nil
	}
	if w.Delegated != before && free {
		err := w.Store.UpdateName(ctx, w.Record.Name, func(n *state.Name) bool {
			n.Target = w.Delegated
			return true
		})
		if err != nil {
			return err
		}
	}
	if !isReady || !r.Alias().LeadsTo(w.Delegated) {
		return nil
	}
	return w.join(ctx)
}

// joinAt notes that the name's record is published at its target: names that share one get a record that
// serves all.
func (w *Site) join(ctx context.Context) error {
	shared, err := w.Store.JoinTarget(ctx, w.Delegated, record.Base(w.Identifier), w.Wide)
	if err != nil {
		return err
	}
	if why := w.share(w.Delegated, shared); why != "" { // another one has come first
		return w.Yield(why)
	}
	w.Record, err = w.RecordFor(w.Terms.Dialect, w.Domain())
	return err
}

// Place is where the record is to be published, as something to look for.
func (w *Site) Place() (propagation.Target, error) {
	switch {
	case w.Delegated == "":
		return w.Target(), nil
	case w.Foreign != "":
		return propagation.Target{}, &ForeignAliasError{w.Record.Name, w.Foreign, w.Delegated, w.Why}
	case w.Disputed != nil:
		return propagation.Target{}, w.Disputed
	}
	t := w.Target()
	return propagation.Target{Name: w.Delegated, Host: PlaceHost(w.Delegated), Accept: t.Accept, Weigh: t.Weigh}, nil
}

// PlaceHost is from where the zone of a target is found: above it, for it may not exist yet,
// but not from a top-level domain.
func PlaceHost(target string) string {
	if _, above, ok := strings.Cut(target, "."); ok && strings.Contains(above, ".") {
		return above
	}
	return target
}

// Elsewhere reports whether a name leads to another target than an attempt has applied:
// then another attempt can publish there.
func (w *Site) Elsewhere(seen propagation.Report) func(propagation.Report) bool {
	d := w.Delegation
	if d == nil || !w.Publishes {
		return nil
	}
	applied := w.Delegated
	if w.Foreign != "" {
		applied = w.Foreign
	} else if w.IsOwnersTurn(seen) {
		applied = ""
	}
	return func(r propagation.Report) bool {
		target := d.LeadsTo(r.Alias(), w.Identifier)
		return target != "" && target != applied
	}
}

// Taken returns what others have at the label to which a name leads, where nothing of ours was written
// yet; empty if nothing. The label that is made from the domain nobody else has.
func (w *Site) Taken(ctx context.Context, checker *propagation.Checker) (why string, err error) {
	if d := w.Delegation; d == nil || d.Name != "" || w.Delegated == "" || w.Delegated == d.Target(w.Identifier) {
		return "", nil
	}
	return w.Keeper(checker).Taken(ctx, propagation.Target{Name: w.Delegated, Host: PlaceHost(w.Delegated)})
}

// Yield gives up a label: the name is asked for at its own.
func (w *Site) Yield(why string) (err error) {
	w.Foreign, w.Why, w.Any = w.Delegated, why, false
	w.Delegated = w.Delegation.Target(w.Identifier)
	w.Record, err = w.RecordFor(w.Terms.Dialect, w.Domain())
	return err
}

// Claim makes sure, before a record is written, that its place may be used, and notes who uses it.
func (w *Site) Claim(ctx context.Context, checker *propagation.Checker) error {
	if w.Delegated == "" || w.Foreign != "" {
		return nil
	}
	why, err := w.Taken(ctx, checker)
	switch {
	case err != nil:
		return &publish.Error{Name: w.Delegated, RetryAt: time.Now().Add(time.Minute), Err: err}
	case why != "":
		err := w.Store.UpdateName(ctx, w.Record.Name, func(n *state.Name) bool {
			known := n.Target == w.Delegated
			if known {
				n.Target = "" // others have come since
			}
			return known
		})
		return errors.Join(err, w.Yield(why))
	}
	return w.join(ctx)
}

// IsOwnersTurn reports whether a record is not written yet because the owner of the domain has to act
// first. Whoever opens a connection chooses the names of on-demand TLS: that its CNAME leads to us is
// the owner's consent. A name in a zone of the provider's has no CNAME, there the permission is the sign.
func (w *Site) IsOwnersTurn(r propagation.Report) bool {
	return w.OnDemand && w.Delegated != "" && w.Delegation.LeadsTo(r.Alias(), w.Identifier) != w.Delegated
}
