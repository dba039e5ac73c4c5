package acmepersist

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

// Delegation says where records stand in place of the validation names: the owner of a domain
// sets a CNAME once, and what it leads to is in a zone of ours. One of the fields is set. The
// CA has to follow CNAMEs.
type Delegation struct {
	// Zone is a name below which each domain has a label of its own, which need not be a zone
	// apex: what its owner's CNAME leads to, if that is below it, else
	// record.DelegationLabel. Several names may lead to one label.
	Zone string
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

// covers reports whether records may be published at the target of a CNAME. It comes from
// somebody else's zone: what could not stand in a zone file as it is, no tool is to be given.
func (d *Delegation) covers(target string) bool {
	if d.Name != "" {
		return target == d.Name
	}
	normal, err := record.Normalize(target)
	return err == nil && normal == target && !record.IsWildcard(target) && strings.HasSuffix(target, "."+d.Zone)
}

// ForeignAliasError says that the validation name leads elsewhere than it should.
type ForeignAliasError struct {
	// Name is the validation name, Alias what it leads to, Wanted what it should.
	Name, Alias, Wanted string
}

func (e *ForeignAliasError) Error() string {
	return fmt.Sprintf("%s is an alias (CNAME) of %s, where nothing of ours can stand: let the owner of the domain change it to %s", e.Name, e.Alias, e.Wanted)
}

// maxAliases is how many CNAMEs of a report are followed.
const maxAliases = 10

// aliasOf is where the CNAMEs at a name lead, without final dot: the first target that is
// wanted, else that of the first CNAME; empty if no server has one.
func aliasOf(r propagation.Report, name string, wanted func(target string) bool) string {
	first := ""
	for range maxAliases {
		i := slices.IndexFunc(r.Servers, func(s propagation.ServerReport) bool { return s.Name == name && (s.Alias != "" || s.Via != "") })
		if i < 0 {
			break
		}
		name = strings.ToLower(strings.TrimSuffix(cmp.Or(r.Servers[i].Alias, r.Servers[i].Via), "."))
		if wanted(name) {
			return name
		}
		first = cmp.Or(first, name)
	}
	return first
}

// leadsTo reports whether the CNAMEs at a name lead to a target.
func leadsTo(r propagation.Report, name, target string) bool {
	return aliasOf(r, name, func(t string) bool { return t == target }) == target
}

// delegate works out where the record of a name stands, from what is known of earlier looks.
func (s *session) delegate(ctx context.Context, w *wanted, validationName string) error {
	d := s.iss.Delegation
	if d == nil {
		return nil
	}
	target := d.Target(w.identifier)
	if d.Name == "" {
		err := s.iss.names.update(ctx, s.store, validationName, func(n *nameState) bool {
			if d.covers(n.Target) {
				target = n.Target
			}
			return false
		})
		if err != nil {
			return err
		}
	}
	return s.pointTo(ctx, w, target)
}

// pointTo takes a target, and heeds for whom else a record stands there.
func (s *session) pointTo(ctx context.Context, w *wanted, target string) error {
	shared, err := s.store.sharing(ctx, target)
	if err != nil {
		return err
	}
	s.share(w, target, shared)
	return nil
}

// share fits what is wanted to those who share the target.
func (s *session) share(w *wanted, target string, shared sharing) {
	w.target = target
	w.any = s.iss.Delegation.Name != "" || shared.others(record.Base(w.identifier))
	w.wide = w.wide || shared.Wildcard && s.iss.Policy != PolicyExact
}

// heedAlias heeds the CNAME that a look has found.
func (s *session) heedAlias(ctx context.Context, w *wanted, r propagation.Report) error {
	d := s.iss.Delegation
	if d == nil {
		return nil
	}
	alias := aliasOf(r, w.record.Name, d.covers)
	w.foreign = ""
	switch {
	case alias == "" || alias == w.target:
		return nil
	case !d.covers(alias):
		w.foreign = alias
		return nil
	}
	if err := s.pointTo(ctx, w, alias); err != nil {
		return err
	}
	var err error
	w.record, err = s.recordFor(*w, w.terms.dialect, w.domain())
	return err
}

// follow is heedAlias, and notes that the name's record stands at its target: names that
// share one get a record that serves all.
func (s *session) follow(ctx context.Context, w *wanted, r propagation.Report) error {
	if s.iss.Delegation == nil {
		return nil
	}
	before := w.target
	if err := s.heedAlias(ctx, w, r); err != nil || w.foreign != "" {
		return err
	}
	if w.target != before {
		err := s.iss.names.update(ctx, s.store, w.record.Name, func(n *nameState) bool {
			n.Target = w.target
			return true
		})
		if err != nil {
			return err
		}
	}
	shared, err := s.store.join(ctx, w.target, record.Base(w.identifier), w.wide)
	if err != nil {
		return err
	}
	s.share(w, w.target, shared)
	w.record, err = s.recordFor(*w, w.terms.dialect, w.domain())
	return err
}

// place is where the record is to be written, as something to look for.
func (s *session) place(w wanted, t propagation.Target) (propagation.Target, error) {
	switch {
	case w.target == "":
		return t, nil
	case w.foreign != "":
		return t, &ForeignAliasError{w.record.Name, w.foreign, w.target}
	}
	return propagation.Target{Name: w.target, Host: placeHost(w.target), Accept: t.Accept}, nil
}

// placeHost is from where the zone of a target is found: above it, for it may not exist yet,
// but not from a top-level domain.
func placeHost(target string) string {
	if _, above, ok := strings.Cut(target, "."); ok && strings.Contains(above, ".") {
		return above
	}
	return target
}

// elsewhere reports whether a name leads to another target by now than an attempt has heeded:
// then another attempt can publish there.
func (s *session) elsewhere(w wanted) func(propagation.Report) bool {
	d, p := s.iss.Delegation, s.iss.Publishing
	if d == nil || p == nil || p.Mode == PublishNever {
		return nil
	}
	heeded := w.target
	if w.foreign != "" {
		heeded = w.foreign
	}
	return func(r propagation.Report) bool {
		alias := aliasOf(r, w.record.Name, d.covers)
		return alias != heeded && d.covers(alias)
	}
}

// sharing is what is remembered of a target: for which domains a record stands there, and
// whether it has to serve wildcards. It only grows, for what stands is never narrowed.
type sharing struct {
	Domains  []string `json:"domains"`
	More     bool     `json:"more,omitempty"` // there are others, which are not listed
	Wildcard bool     `json:"wildcard,omitempty"`
	// Incomplete is true if a file was lost: domains that have not come by since are not listed.
	Incomplete bool `json:"incomplete,omitempty"`
}

// Check reports what a file has to hold.
func (h *sharing) Check() error {
	if len(h.Domains) == 0 && !h.Incomplete {
		return errors.New("domains are missing")
	}
	return nil
}

// sharedUpTo is how many domains are listed.
const sharedUpTo = 100

// others reports whether a domain is not alone.
func (h sharing) others(domain string) bool {
	return h.More || slices.ContainsFunc(h.Domains, func(other string) bool { return other != domain })
}

func (s store) sharingKey(target string) string { return s.Key("targets", s.Safe(target)+".json") }

func (s store) sharing(ctx context.Context, target string) (shared sharing, err error) {
	_, lost, err := s.Recall(ctx, s.sharingKey(target), &shared)
	shared.Incomplete = shared.Incomplete || lost
	return shared, err
}

// join notes that a domain's record stands at the target.
func (s store) join(ctx context.Context, target, domain string, wildcard bool) (sharing, error) {
	grow := func(h *sharing) bool {
		known := h.More && len(h.Domains) >= sharedUpTo || slices.Contains(h.Domains, domain)
		if known && (h.Wildcard || !wildcard) {
			return false
		}
		h.Wildcard = h.Wildcard || wildcard
		switch {
		case known:
		case len(h.Domains) >= sharedUpTo:
			h.More = true
		default:
			h.Domains = append(h.Domains, domain)
		}
		return true
	}
	shared, err := s.sharing(ctx, target)
	if err != nil || !grow(&shared) {
		return shared, err
	}
	err = s.Locked(ctx, "dns_persist_target_"+s.Safe(target), nil, func() error {
		if shared, err = s.sharing(ctx, target); err != nil || !grow(&shared) {
			return err
		}
		return s.Save(ctx, s.sharingKey(target), shared)
	})
	return shared, err
}
