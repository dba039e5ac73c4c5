package dnspersist

import (
	"context"
	"math/rand/v2"
	"time"

	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/internal/tuning"
)

const (
	// readDirectoryEvery is how often a CA is asked whether its records have to be
	// others, firstRead how long after a start: a change has to be known long
	// before a certificate needs it.
	readDirectoryEvery = 24 * time.Hour
	firstRead          = 5 * time.Minute
	// lookEvery is how often the record of a name with a certificate is looked at,
	// lookTick how often it is checked which are due.
	lookEvery = 24 * time.Hour
	lookTick  = 2 * time.Hour
)

// chore is work that is done daily, by one configuration after the other.
type chore struct {
	// at is when it is due next, first how long after a start that is, most the longest wait of a
	// configuration, and pause the time between two turns.
	at          *time.Time
	first, most time.Duration
	pause       func() time.Duration
	do          func(ctx context.Context, iss *Issuer, active *acmepersist.Issuer) error
	// failed is what is logged if it fails for an issuer.
	failed string
}

// daily does a chore for all issuers again and again.
func (a *App) daily(ctx context.Context, c chore) {
	for wait := a.shared.due(c.at, c.first, c.most); ; wait = a.shared.again(c.at, c.pause()) {
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		for _, iss := range a.issuers() {
			active, _ := iss.active()
			if err := c.do(ctx, iss, active); err != nil && ctx.Err() == nil {
				a.logger.Warn(c.failed, zap.String("ca", iss.CA), zap.Error(err))
			}
		}
		if ctx.Err() != nil {
			return // the next configuration goes on
		}
	}
}

// readDirectories compares the directory of each CA with what it was before, daily, and removes records
// that were written on demand and are not wanted any more.
func (a *App) readDirectories(ctx context.Context) {
	every := tuning.Or(a.tuning.ReadDirectory, readDirectoryEvery)
	a.daily(ctx, chore{
		// a fleet that is started at once need not ask at once
		at: &a.shared.nextRead, first: min(firstRead, every) + rand.N(min(firstRead, every)/2+1), most: every + every/8,
		pause: func() time.Duration { return every + rand.N(every/8+1) },
		do: func(ctx context.Context, iss *Issuer, active *acmepersist.Issuer) error {
			err := active.ReadDirectory(ctx)
			if iss.rt.publishing != nil && a.shared.mayRemove(owner{iss}.account(), time.Now()) {
				if err := active.RemoveUnused(ctx, time.Duration(a.onDemand.RemoveAfter), a.planned().Names()); err != nil && ctx.Err() == nil {
					a.logger.Warn("what was written on demand could not be looked through; this is tried again in a day",
						zap.String("ca", iss.CA), zap.Error(err))
				}
			}
			return err
		},
		failed: "the CA's directory was not compared with what it was before; this is tried again later",
	})
}

// lookAtNames looks at published records daily, so that one that has vanished is known long
// before a renewal needs it.
func (a *App) lookAtNames(ctx context.Context) {
	every := tuning.Or(a.tuning.LookAtNames, lookEvery)
	tick := min(lookTick, every)
	pause := func() time.Duration { return tick/2 + rand.N(tick) }
	a.daily(ctx, chore{
		at: &a.shared.nextLook, first: pause(), most: tick/2 + tick, pause: pause,
		do: func(ctx context.Context, _ *Issuer, active *acmepersist.Issuer) error {
			return active.LookAtNames(ctx, every)
		},
		failed: "published records could not be looked at; this is tried again later",
	})
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
