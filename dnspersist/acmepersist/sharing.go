package acmepersist

import (
	"context"
	"errors"
	"slices"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/fair"
)

// sharing is what is remembered of a target: for which domains a record is published there, the first one
// first, and whether it has to serve wildcards. It only grows, for what is published is never narrowed.
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

// isStranger reports whether a domain shares a label with another owner's, who came first: a
// registered domain has one owner.
func (h sharing) isStranger(domain string) bool {
	return len(h.Domains) > 0 && fair.Domain(h.Domains[0]) != fair.Domain(domain)
}

// any reports whether several domains of the owner who came first need the record, a domain
// included that may be the owner's as well.
func (h sharing) any(domain string) bool {
	first := domain
	if len(h.Domains) > 0 {
		first = h.Domains[0]
	}
	return slices.ContainsFunc(append([]string{domain}, h.Domains...), func(other string) bool {
		return other != first && fair.Domain(other) == fair.Domain(first)
	})
}

func (s store) sharingKey(target string) string { return s.Key("targets", s.Safe(target)+".json") }

func (s store) sharing(ctx context.Context, target string) (shared sharing, err error) {
	_, lost, err := s.Recall(ctx, s.sharingKey(target), &shared)
	shared.Incomplete = shared.Incomplete || lost
	return shared, err
}

// join notes that a domain's record is published at the target.
func (s store) join(ctx context.Context, target, domain string, wildcard bool) (sharing, error) {
	grow := func(h *sharing) bool {
		wildcard := wildcard && !h.isStranger(domain)
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
