package dnspersist

import (
	"context"
	"strings"
	"sync"
	"time"

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

// rereadAfter is how long after a failure the names of earlier runs are not read again.
const rereadAfter = time.Minute

// wide knows at which validation names one record has to serve a wildcard as well, for one CA
// and storage: what is managed, and what was seen in earlier runs, for a record is never
// narrowed.
type wide struct {
	mu    sync.Mutex
	bases map[string]bool
	// known is set once the names of earlier runs are read; failed and why are of the last
	// attempt that was not.
	known  bool
	failed time.Time
	why    error
	// reading is closed when the attempt under way ends; nil without one.
	reading chan struct{}
}

// has reports whether a wildcard is wanted below the name of a validation name. seen reads the
// names of earlier runs: once, and again a while after a failure. With an error the answer is
// made of what is known.
func (w *wide) has(ctx context.Context, validationName string, seen func(context.Context) ([]string, error)) (bool, error) {
	err := w.learn(ctx, seen)
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.bases[strings.TrimPrefix(validationName, record.Label+".")], err
}

// learn has the names of earlier runs read, or waits for who reads them.
func (w *wide) learn(ctx context.Context, seen func(context.Context) ([]string, error)) error {
	w.mu.Lock()
	switch {
	case w.known:
		w.mu.Unlock()
		return nil
	case w.reading == nil && !w.failed.IsZero() && time.Since(w.failed) < rereadAfter:
		defer w.mu.Unlock()
		return w.why
	case w.reading == nil:
		w.reading = make(chan struct{})
		// for all callers: the end of the first is not theirs
		go w.read(context.WithoutCancel(ctx), w.reading, seen)
	}
	reading := w.reading
	w.mu.Unlock()
	select {
	case <-reading:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.known {
		return nil
	}
	return w.why
}

// read is one attempt to read the names of earlier runs.
func (w *wide) read(ctx context.Context, done chan struct{}, seen func(context.Context) ([]string, error)) {
	names, err := seen(ctx)
	w.mu.Lock()
	defer w.mu.Unlock()
	defer close(done)
	w.reading = nil
	if err != nil {
		w.failed, w.why = time.Now(), err
		return
	}
	w.known = true
	for _, n := range names {
		if normal, err := record.Normalize(n); err == nil && record.IsWildcard(normal) {
			w.bases[record.Base(normal)] = true
		}
	}
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
