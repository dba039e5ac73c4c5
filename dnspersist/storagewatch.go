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
)

// watchStorage makes up for what CertMagic gives up for good: a first certificate whose job has found
// that the storage is full, read-only or gone. It lasts until every name is served or has been
// taken up by an issuer; what breaks later is tried again by others.
func (a *App) watchStorage(ctx context.Context) {
	var names map[string]*Issuer
	failed := make(map[*Issuer]bool)
	for wait := storageFirst; ; wait = min(2*wait, storageMost) {
		if len(failed) > 0 {
			wait = min(wait, storageBroken)
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		if names == nil {
			names = a.managedBy()
		}
		a.dropAttended(names)
		if len(names) == 0 {
			return
		}
		todo := make(map[*Issuer][]string)
		for name, iss := range names {
			todo[iss] = append(todo[iss], name)
		}
		for iss, names := range todo {
			_, cfg := iss.active()
			err := tryStorage(ctx, cfg.Storage)
			switch {
			case ctx.Err() != nil:
				return
			case err != nil && !failed[iss]:
				failed[iss] = true
				a.logger.Error("the storage cannot be used, and nothing is obtained until it can; this is tried again by itself",
					zap.String("storage", storageName(cfg.Storage)), zap.String("ca", iss.CA), zap.Int("names", len(names)), zap.Error(err))
			case err == nil && failed[iss]:
				delete(failed, iss)
				a.logger.Warn("the storage can be used again; obtaining the certificates that CertMagic had given up",
					zap.String("storage", storageName(cfg.Storage)), zap.String("ca", iss.CA), zap.Int("names", len(names)))
				if err := cfg.ManageAsync(ctx, names); err != nil {
					a.logger.Error("certificates that CertMagic had given up could not be asked for; this is tried again with the next load of the configuration", zap.Error(err))
				}
			}
		}
	}
}

// managedBy returns the names that are managed, each with the issuer of ours that comes first.
func (a *App) managedBy() map[string]*Issuer {
	p := a.livePlan()
	names := make(map[string]*Issuer)
	for _, name := range p.managed() {
		policy, ok := p.policyFor(name)
		if !ok || policy.issuers[0].rt == nil || !policy.issuers[0].rt.ready() {
			continue
		}
		// those on demand have their next handshake
		if _, cfg := policy.issuers[0].active(); cfg.OnDemand == nil {
			names[name] = policy.issuers[0]
		}
	}
	return names
}

// dropAttended takes out the names that have a certificate or wait with us.
func (a *App) dropAttended(names map[string]*Issuer) {
	for _, p := range a.shared.parkedOf(a) {
		delete(names, p.identifier)
	}
	for name := range names {
		if len(caddytls.AllMatchingCertificates(name)) > 0 {
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
