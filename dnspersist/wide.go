package dnspersist

import (
	"context"
	"strings"
	"sync"

	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

// wildcards returns the names below which a wildcard is managed with a CA: by the subjects of
// its policies, and by the names that they serve.
func (p plan) wildcards(ca string) map[string]bool {
	bases := make(map[string]bool)
	add := func(policy planned, name string) {
		normal, err := record.Normalize(name)
		if err != nil || !record.IsWildcard(normal) {
			return
		}
		for _, iss := range policy.issuers {
			if iss.CA == ca {
				bases[record.Base(normal)] = true
			}
		}
	}
	for _, policy := range p.policies {
		for _, subject := range policy.subjects {
			add(policy, subject)
		}
	}
	for _, n := range p.names {
		if policy, ok := p.policyFor(n); ok {
			add(policy, n)
		}
	}
	return bases
}

// wide knows at which validation names one record has to serve a wildcard as well, for one CA
// and storage: what is managed, and what was seen in earlier runs, for a record is never
// narrowed.
type wide struct {
	read  sync.Once // others wait until it is done
	mu    sync.Mutex
	bases map[string]bool
}

// has reports whether a wildcard is wanted below the name of a validation name. seen reads the
// names of earlier runs, once.
func (w *wide) has(ctx context.Context, validationName string, seen func(context.Context) ([]string, error)) (bool, error) {
	var err error
	w.read.Do(func() {
		var names []string
		names, err = seen(ctx)
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, n := range names {
			if normal, err := record.Normalize(n); err == nil && record.IsWildcard(normal) {
				w.bases[record.Base(normal)] = true
			}
		}
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.bases[strings.TrimPrefix(validationName, record.Label+".")], err
}

// wildcardManaged is the acmepersist.Config.Wildcard of an issuer that Caddy runs.
func (iss *Issuer) wildcardManaged(ctx context.Context, validationName string) bool {
	active, cfg := iss.active()
	key := iss.CA + "|" + storageKey(cfg.Storage)
	a := iss.rt.app
	a.mu.Lock()
	w := a.wides[key]
	a.mu.Unlock()
	if w == nil {
		// all apps are provisioned by now
		fresh := &wide{bases: a.livePlan().wildcards(iss.CA)}
		a.mu.Lock()
		if w = a.wides[key]; w == nil {
			if a.wides == nil {
				a.wides = make(map[string]*wide)
			}
			w = fresh
			a.wides[key] = w
		}
		a.mu.Unlock()
	}
	is, err := w.has(ctx, validationName, active.SeenIdentifiers)
	if err != nil {
		iss.rt.logger.Warn("names of earlier runs are not known; records are asked for without them", zap.Error(err))
	}
	return is
}
