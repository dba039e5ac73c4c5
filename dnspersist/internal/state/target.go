package state

import (
	"context"
	"errors"
	"slices"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/fair"
)

// Target is what is remembered of the target of a delegation: for which domains a record is published there,
// the first one first, and whether it has to serve wildcards. It only grows, for what is published is never
// narrowed.
type Target struct {
	Domains  []string `json:"domains"`
	More     bool     `json:"more,omitempty"` // there are others, which are not listed
	Wildcard bool     `json:"wildcard,omitempty"`
	// Incomplete is true if a file was lost: domains that have not come by since are not listed.
	Incomplete bool `json:"incomplete,omitempty"`
}

// Check reports what a file has to hold.
func (t *Target) Check() error {
	if len(t.Domains) == 0 && !t.Incomplete {
		return errors.New("domains are missing")
	}
	return nil
}

// mostDomains is how many domains are listed.
const mostDomains = 100

// IsStranger reports whether a domain shares a label with another owner's, who came first: a
// registered domain has one owner.
func (t Target) IsStranger(domain string) bool {
	return len(t.Domains) > 0 && fair.Domain(t.Domains[0]) != fair.Domain(domain)
}

// IsShared reports whether several domains of the owner who came first need the record, a domain
// included that may be the owner's as well.
func (t Target) IsShared(domain string) bool {
	first := domain
	if len(t.Domains) > 0 {
		first = t.Domains[0]
	}
	return slices.ContainsFunc(append([]string{domain}, t.Domains...), func(other string) bool {
		return other != first && fair.Domain(other) == fair.Domain(first)
	})
}

func (s Store) targetKey(name string) string { return s.Key("targets", Safe(name)+".json") }

// Target returns what is remembered of a target.
func (s Store) Target(ctx context.Context, name string) (t Target, err error) {
	_, lost, err := s.Recall(ctx, s.targetKey(name), &t)
	t.Incomplete = t.Incomplete || lost
	return t, err
}

// ForgetTarget forgets a target at which no record is published any more.
func (s Store) ForgetTarget(ctx context.Context, name string) error {
	return s.Remove(ctx, s.targetKey(name))
}

// JoinTarget notes that a domain's record is published at the target.
func (s Store) JoinTarget(ctx context.Context, name, domain string, wildcard bool) (Target, error) {
	t, err := s.Target(ctx, name)
	if err != nil || !t.join(domain, wildcard) {
		return t, err
	}
	err = s.Locked(ctx, "dns_persist_target_"+Safe(name), nil, func() error {
		if t, err = s.Target(ctx, name); err != nil || !t.join(domain, wildcard) {
			return err
		}
		return s.Save(ctx, s.targetKey(name), t)
	})
	return t, err
}

// join adds a domain, and reports whether that changes anything.
func (t *Target) join(domain string, wildcard bool) bool {
	wildcard = wildcard && !t.IsStranger(domain)
	known := t.More && len(t.Domains) >= mostDomains || slices.Contains(t.Domains, domain)
	if known && (t.Wildcard || !wildcard) {
		return false
	}
	t.Wildcard = t.Wildcard || wildcard
	switch {
	case known:
	case len(t.Domains) >= mostDomains:
		t.More = true
	default:
		t.Domains = append(t.Domains, domain)
	}
	return true
}
