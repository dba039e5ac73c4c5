package dnspersist

import (
	"context"
	"math/rand/v2"
	"time"

	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/internal/tuning"
)

const (
	// readDirectoryEvery is how often a CA is asked whether its records have to say
	// something else, firstRead how long after a start: a change has to be known long
	// before a certificate needs it.
	readDirectoryEvery = 24 * time.Hour
	firstRead          = 5 * time.Minute
)

// readDirectories compares the directory of each CA with what it said before, daily.
func (a *App) readDirectories(ctx context.Context) {
	every := tuning.Or(a.tuning.ReadDirectory, readDirectoryEvery)
	// a fleet that is started at once need not ask at once
	first := min(firstRead, every) + rand.N(min(firstRead, every)/2+1)
	wait := a.shared.due(&a.shared.nextRead, first, every+every/8)
	for {
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		for _, iss := range a.issuers() {
			active, _ := iss.active()
			if err := active.ReadDirectory(ctx); err != nil && ctx.Err() == nil {
				a.logger.Warn("the CA's directory was not compared with what it said before; this is tried again later",
					zap.String("ca", iss.CA), zap.Error(err))
			}
			if iss.rt.publishing != nil && a.shared.mayRemove(owner{iss}.account(), time.Now()) {
				if err := active.RemoveUnused(ctx, time.Duration(a.onDemand.RemoveAfter), a.planned().Names()); err != nil && ctx.Err() == nil {
					a.logger.Warn("what was written on demand could not be looked through; this is tried again in a day",
						zap.String("ca", iss.CA), zap.Error(err))
				}
			}
		}
		if ctx.Err() != nil {
			return // the next configuration goes on
		}
		wait = a.shared.again(&a.shared.nextRead, every+rand.N(every/8+1))
	}
}

const (
	// lookEvery is how often the record of a name with a certificate is looked at,
	// lookTick how often it is checked which are due.
	lookEvery = 24 * time.Hour
	lookTick  = 2 * time.Hour
)

// lookAtNames looks at standing records daily, so that one that has vanished is known long
// before a renewal needs it.
func (a *App) lookAtNames(ctx context.Context) {
	every := tuning.Or(a.tuning.LookAtNames, lookEvery)
	tick := min(lookTick, every)
	pause := func() time.Duration { return tick/2 + rand.N(tick) }
	wait := a.shared.due(&a.shared.nextLook, pause(), tick/2+tick)
	for {
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		for _, iss := range a.issuers() {
			active, _ := iss.active()
			if err := active.LookAtNames(ctx, every); err != nil && ctx.Err() == nil {
				a.logger.Warn("standing records could not be looked at; this is tried again later",
					zap.String("ca", iss.CA), zap.Error(err))
			}
		}
		if ctx.Err() != nil {
			return // the next configuration goes on
		}
		wait = a.shared.again(&a.shared.nextLook, pause())
	}
}

// issuers returns one issuer of this configuration for each CA, account and storage, of those
// that are in use.
func (a *App) issuers() []*Issuer {
	var all []*Issuer
	seen := make(map[string]bool)
	for _, iss := range a.planned().Issuers() {
		if iss.rt == nil || !iss.rt.ready() {
			continue
		}
		if id := (owner{iss}).account(); !seen[id] {
			seen[id] = true
			all = append(all, iss)
		}
	}
	return all
}
