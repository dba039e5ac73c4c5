package dnspersist

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddytls"
	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/operator"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
)

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
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		if w.try(ctx) {
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
		if iss.rt == nil || !iss.rt.ready() {
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
	if a.takenUp == nil {
		a.takenUp = make(map[string]bool)
	}
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
	key, text := st.Key("tried_"+rand.Text()), []byte(rand.Text())
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
