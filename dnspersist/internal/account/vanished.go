package account

import (
	"context"

	"go.uber.org/zap"
)

// A storage can lose what it had while processes go on: a Redis that restarts without having saved, a
// directory that was emptied. The key of the account is in the memory of each process that has used it
// then, and nowhere else; with the last of them it would be gone, and with it what every record is worth.
// So it is put back. It also takes its place again from an account that a process has registered
// meanwhile, which had started with the empty storage and could not know better.

// Keep makes sure that storage has the account that is in use, and reads it if this process has none in
// memory yet.
func (h *Holder) Keep(ctx context.Context) error {
	h.memory.mu.Lock()
	bound := h.memory.bound
	h.memory.mu.Unlock()
	if bound == nil {
		stored, found, err := h.known(ctx)
		if err == nil && found {
			h.memory.renew(nil, stored)
		}
		return err
	}
	fresh, err := h.reload(ctx, *bound)
	if err == nil {
		h.memory.renew(bound, fresh) // what another process has made of it is not put back as it was before
	}
	return err
}

// reload reads the binding again that is in use. One that has vanished is put back; where that fails the
// one in memory is used all the same.
func (h *Holder) reload(ctx context.Context, bound binding) (binding, error) {
	stored, found, err := h.known(ctx)
	if err != nil {
		return binding{}, err
	}
	hasVanished, err := h.hasVanished(ctx, bound, stored, found)
	if err != nil {
		return binding{}, err
	}
	before := h.memory.isGone(hasVanished)
	switch {
	case !hasVanished && found:
		return stored, nil
	case !hasVanished:
		return bound, nil
	}
	back, err := h.putBack(ctx, bound)
	if err == nil {
		h.memory.isGone(false)
		return back, nil
	}
	if !before {
		h.logger.Error("the bound ACME account is no longer in storage and could not be written back; going on with the one in memory until the process ends: restore the file from a backup",
			zap.String("ca", bound.CA), zap.String("account", bound.URL), zap.String("storage_key", bound.at), zap.Error(err))
	}
	return bound, nil
}

// hasVanished reports whether the binding in use is not in storage, where nobody has taken it out. An
// account that took its place in the right way (Replace) has left it among the lost ones.
func (h *Holder) hasVanished(ctx context.Context, bound, stored binding, found bool) (bool, error) {
	switch {
	case bound.at == "", !bound.endedAt().IsZero(): // not ours to keep, or to be removed by hand
		return false, nil
	case !found:
	case stored.URL == bound.URL, stored.Origin != originRegistered, h.PinnedURL != "", h.PinnedKeyPEM != "", !stored.BoundAt.After(bound.BoundAt):
		return false, nil
	}
	isReplaced, err := h.store.Load(ctx, h.lostKey(bound), new(binding))
	return !isReplaced, err
}

// lostKey is where an account is kept that another one has taken the place of.
func (f *files) lostKey(b binding) string { return f.store.Key("lost", b.Thumbprint+".json") }

// putBack writes the binding in use back into storage. What is in its place is kept among the lost ones.
func (h *Holder) putBack(ctx context.Context, bound binding) (binding, error) {
	err := h.locked(ctx, nil, func() error {
		there, found, err := h.load(ctx, bound.at)
		if err != nil {
			return err
		}
		// another process may have put it back, or replaced it, while we waited
		isBound := found && there.URL != ""
		if hasVanished, err := h.hasVanished(ctx, bound, there, isBound); err != nil || !hasVanished {
			if isBound {
				bound = there
			}
			return err
		}
		if found {
			if err := h.store.Save(ctx, h.lostKey(there), there); err != nil {
				return err
			}
		}
		if err := h.store.Save(ctx, bound.at, bound); err != nil {
			return err
		}
		h.logger.Error("storage lost? the ACME account was no longer in storage, and was written back from memory: see what has happened to the storage, and set account_url, which keeps a process that starts with an empty one from registering another account",
			zap.String("ca", bound.CA), zap.String("account", bound.URL), zap.String("storage_key", bound.at), zap.String("in_place_of", there.URL))
		return nil
	})
	return bound, err
}
