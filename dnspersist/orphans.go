package dnspersist

import (
	"context"
	"slices"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
)

// started takes note of a configuration that runs.
func (s *shared) started(a *App) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !a.ended {
		s.apps = append(s.apps, a)
	}
}

// lives reports whether a configuration has not ended.
func (s *shared) lives(a *App) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !a.ended
}

// disown takes a configuration that ends out of all parked names.
func (s *shared) disown(a *App) {
	orphaned := s.announcer.any() // its lock comes before that of shared
	s.mu.Lock()
	defer s.mu.Unlock()
	a.ended = true
	s.apps = slices.DeleteFunc(s.apps, func(other *App) bool { return other == a })
	for _, p := range s.parked {
		if _, owned := p.newest(); !owned {
			orphaned = true
		}
	}
	if !orphaned || s.closed {
		return
	}
	if s.orphan != nil {
		s.orphan.Stop()
	}
	s.orphan = time.AfterFunc(orphanFor, s.dropOrphans)
}

// dropOrphans forgets names that no configuration wants any more, and what was announced for
// them.
func (s *shared) dropOrphans() {
	s.mu.Lock()
	var orphans []*parked
	var stops []func()
	owners := make(map[claim]*App)
	for _, p := range s.parked {
		if o, owned := p.newest(); owned {
			owners[claim{p.hold.CA, p.identifier}] = o.iss.rt.app
			continue
		}
		s.unlist(p)
		orphans, stops = append(orphans, p), append(stops, p.stop())
	}
	apps := slices.Clone(s.apps)
	s.mu.Unlock()
	for i, p := range orphans {
		stops[i]()
		s.announcer.leave(p.identifier, p.hold.Record, s.lives)
	}
	if !s.announcer.any() {
		return
	}
	// beside other issuers nothing is parked, and after a reload nobody may ask for long
	for _, a := range apps {
		planned := make(chan struct{})
		// its end waits for this, for it takes away what the plan is made of
		if !a.spawn(func(context.Context) {
			defer close(planned)
			p := a.livePlan()
			for _, name := range p.Names() {
				for _, iss := range p.Serving(name) {
					owners[claim{iss.CA, name}] = a
				}
			}
		}) {
			continue
		}
		<-planned
	}
	s.announcer.inherit(owners, s.lives)
}

// claim is that an identifier needs a record for a CA.
type claim struct{ ca, identifier string }

// claimed is what is announced for a claim, for a configuration.
type claimed struct {
	record acmepersist.Record
	by     *App
}

// any reports whether anything is announced.
func (a *announcer) any() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.wanted) > 0
}

// leave takes an identifier off a record, unless a configuration that lives wants it.
func (a *announcer) leave(identifier string, r acmepersist.Record, lives func(*App) bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if w := a.wanted[r]; w != nil {
		if c := a.claims[claim{w.ca, identifier}]; c.record == r && c.by != nil && lives(c.by) {
			return
		}
		a.drop(identifier, r)
	}
}

// inherit gives what configurations have announced that ended to those that own the claims now,
// and drops the rest.
func (a *announcer) inherit(owners map[claim]*App, lives func(*App) bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for c, was := range a.claims {
		if lives(was.by) {
			continue
		}
		if heir := owners[c]; heir != nil {
			a.claims[c] = claimed{was.record, heir}
		} else {
			a.drop(c.identifier, was.record)
			delete(a.claims, c)
		}
	}
}
