package dnspersist

import (
	"bytes"
	"context"
	cryptorand "crypto/rand"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddytls"
	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/ca"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/operator"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/parking"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
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
	// askFirst and askMost bound how long a CA is left alone that was down, or has not accepted the account.
	askFirst, askMost = time.Minute, 10 * time.Minute
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
		if ca.Sleep(ctx, wait) != nil {
			return
		}
		for _, iss := range a.planned().inUse() {
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
	a.rememberRecords(ctx, every)
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

// askAgain asks each CA that was down, or has not accepted the account, until it answers: nothing else may ask it
// for a day, and an alert would last as long. By the way it sees to it that storage has the account.
func (a *App) askAgain(ctx context.Context, ask func(*acmepersist.Issuer, context.Context) error) {
	wait, isTroubled := askFirst, false
	a.daily(ctx, chore{
		at: &a.shared.nextAsk, first: askFirst, most: askMost + askMost/8,
		pause: func() time.Duration {
			wait = min(2*wait, askMost)
			if !isTroubled {
				wait = askFirst
			}
			isTroubled = false
			return wait + rand.N(wait/8)
		},
		do: func(ctx context.Context, iss *Issuer, active *acmepersist.Issuer) error {
			err := active.KeepAccount(ctx)
			if !a.shared.needsAsking(iss) {
				return err
			}
			isTroubled = true
			if err := ask(active, ctx); err != nil && ctx.Err() == nil { // whoever has met it first has logged it
				a.logger.Debug("the CA was asked again, and is of no use yet", zap.String("ca", iss.CA), zap.Error(err))
			}
			return err
		},
		failed: "whether storage has the ACME account is not known; this is tried again later",
	})
}

// needsAsking reports whether a CA has last not accepted the account, or is down and nobody waits for it: attempts
// find out by themselves, and that the directory answers does not mean that orders do.
func (s *shared) needsAsking(iss *Issuer) bool {
	seen := s.metrics.CA(iss.CA, owner{iss}.account())
	if seen.IsAccountLost() || seen.DownSince().IsZero() {
		return seen.IsAccountLost()
	}
	isWanted := false
	s.registry.Each(func(s parking.Status) {
		isWanted = isWanted || s.CA == iss.CA && s.Reason == acmepersist.ReasonCADown
	})
	return !isWanted
}

// rememberAfter is how long after a start it is read what was last found of the published records.
const rememberAfter = 10 * time.Second

// rememberRecords takes from storage, once for a process, what an earlier one has found of the published records.
func (a *App) rememberRecords(ctx context.Context, every time.Duration) {
	if a.shared.hasRemembered.Load() || ca.Sleep(ctx, min(rememberAfter, every)) != nil || !a.shared.hasRemembered.CompareAndSwap(false, true) {
		return
	}
	for _, iss := range a.planned().inUse() {
		active, _ := iss.active()
		if err := active.RememberRecords(ctx, every); err != nil && ctx.Err() == nil {
			a.logger.Debug("what was last found of the published records could not be read", zap.String("ca", iss.CA), zap.Error(err))
		}
	}
}

// inUse returns one issuer of this configuration for each CA, account and storage, of those
// that are in use.
func (p planned) inUse() []*Issuer {
	var all []*Issuer
	seen := make(map[string]bool)
	for _, iss := range p.Issuers() {
		if !iss.isInUse() {
			continue
		}
		if id := (owner{iss}).account(); !seen[id] {
			seen[id] = true
			all = append(all, iss)
		}
	}
	return all
}

const (
	// storageFirst is how long after a start the storage is tried first, storageMost the longest
	// time between two tries, storageBroken that while it does not work.
	storageFirst  = time.Second
	storageMost   = 10 * time.Minute
	storageBroken = time.Minute
	// storageWithin bounds one try.
	storageWithin = 30 * time.Second
	// storagePatience is how long after the start a name that has come to no issuer may still be on
	// its way there, where the storage works: CertMagic may have met it while it did not.
	storagePatience = time.Minute
)

// watchStorage makes up for what CertMagic gives up for good: a first certificate whose job has found
// that the storage is full, read-only or gone. It lasts until every name is served or has been
// taken up by an issuer; what breaks later is tried again by others.
func (a *App) watchStorage(ctx context.Context) {
	w := storageWatch{app: a, began: time.Now(), failed: make(map[*Issuer]bool)}
	for wait := storageFirst; ; wait = min(2*wait, storageMost) {
		if len(w.failed) > 0 {
			wait = min(wait, storageBroken)
		}
		if ca.Sleep(ctx, wait) != nil || w.try(ctx) {
			return
		}
	}
}

// storageWatch is what watchStorage goes on with from one try to the next.
type storageWatch struct {
	app   *App
	began time.Time
	names map[string]*Issuer
	// failed are the issuers whose storage did not work when it was last tried.
	failed map[*Issuer]bool
	// asked is true once the names that had come to no issuer were asked for again: those whose job
	// waits for a lock have two jobs from then on, and must not have more.
	asked bool
}

// try tries the storages once, and reports whether that is over.
func (w *storageWatch) try(ctx context.Context) (over bool) {
	a := w.app
	if w.names == nil {
		w.names = a.managedBy()
	}
	a.dropAttended(w.names)
	if len(w.names) == 0 {
		return true
	}
	todo := make(map[*Issuer][]string)
	for name, iss := range w.names {
		todo[iss] = append(todo[iss], name)
	}
	ask := !w.asked && time.Since(w.began) >= storagePatience
	w.asked = w.asked || ask
	for iss, names := range todo {
		_, cfg := iss.active()
		fields := []zap.Field{zap.String("storage", operator.StorageName(cfg.Storage)), zap.String("ca", iss.CA), zap.Int("names", len(names))}
		err := tryStorage(ctx, cfg.Storage)
		switch {
		case ctx.Err() != nil:
			return true
		case err != nil:
			if !w.failed[iss] {
				w.failed[iss] = true
				a.logger.Error("the storage cannot be used, and nothing is obtained until it can; this is tried again by itself",
					append(fields, zap.Error(err))...)
			}
			continue
		case w.failed[iss]:
			delete(w.failed, iss)
			a.logger.Warn("the storage can be used again; obtaining the certificates that CertMagic had given up", fields...)
		case !ask:
			continue
		}
		for _, name := range names {
			removeMismatched(ctx, a.logger, cfg, iss.IssuerKey(), name)
		}
		if err := cfg.ManageAsync(ctx, names); err != nil {
			a.logger.Error("certificates that CertMagic had given up could not be asked for; this is tried again with the next load of the configuration", zap.Error(err))
		}
	}
	return false
}

// managedBy returns the names that are managed, each with the issuer of ours that comes first.
func (a *App) managedBy() map[string]*Issuer {
	p := a.planned()
	names := make(map[string]*Issuer)
	for _, name := range p.Names() {
		iss := p.Serving(name)[0]
		if !iss.isInUse() {
			continue
		}
		// those on demand have their next handshake
		if _, cfg := iss.active(); cfg.OnDemand == nil {
			names[name] = iss
		}
	}
	return names
}

// takesUp notes that an attempt for a name has come to an issuer: from then on it is tried again by
// CertMagic or by us.
func (a *App) takesUp(name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.takenUp[name] = true
}

// dropAttended takes out the names that have a certificate, wait with us, or were taken up.
func (a *App) dropAttended(names map[string]*Issuer) {
	a.mu.Lock()
	for name := range a.takenUp {
		delete(names, name)
	}
	a.mu.Unlock()
	for name, iss := range names {
		if a.shared.registry.Waits(owner{iss}, name) || len(caddytls.AllMatchingCertificates(name)) > 0 {
			delete(names, name)
		}
	}
}

// tryStorage does with a storage what CertMagic does before it obtains a certificate.
func tryStorage(ctx context.Context, storage certmagic.Storage) error {
	ctx, cancel := context.WithTimeout(ctx, storageWithin)
	defer cancel()
	st := state.Store{Storage: storage, Folder: state.Root}
	key, text := st.Key("tried_"+cryptorand.Text()), []byte(cryptorand.Text())
	if err := storage.Store(ctx, key, text); err != nil {
		return fmt.Errorf("writing to it: %w", err)
	}
	loaded, err := storage.Load(ctx, key)
	if removeErr := st.Remove(ctx, key); err == nil {
		err = removeErr
	}
	if err != nil {
		return fmt.Errorf("reading from it what was written: %w", err)
	}
	if !bytes.Equal(loaded, text) {
		return errors.New("it has returned other octets than were written")
	}
	if err := st.Locked(ctx, key, nil, func() error { return nil }); err != nil {
		return fmt.Errorf("taking a lock in it: %w", err)
	}
	return nil
}
