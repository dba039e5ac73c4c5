package account

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
)

// empty empties the storage, as a Redis is that restarts without having saved.
func empty(t *testing.T, h *Holder) {
	t.Helper()
	if err := h.store.Storage.Delete(t.Context(), state.Root); err != nil {
		t.Fatal(err)
	}
}

// stored is the account in storage.
func stored(t *testing.T, h *Holder) string {
	t.Helper()
	known, found, err := New(h.Config).Known(t.Context())
	if err != nil || !found {
		t.Fatalf("no account is in storage: %v", err)
	}
	return known.URL
}

// An account that a storage has lost is put back by a process that has it in memory, whether it has used it or
// only read it; one that was pinned as well.
func TestAccountIsPutBack(t *testing.T) {
	for what, pinned := range map[string]string{"the only one": "", "one that account_url names": testAccount} {
		t.Run(what, func(t *testing.T) {
			_, h, logs := newWorld(t, Config{})
			bound(t, h)
			cfg := h.Config
			cfg.PinnedURL = pinned
			reader := New(cfg)
			if err := reader.Keep(t.Context()); err != nil {
				t.Fatal(err)
			}
			for _, process := range []*Holder{h, reader} {
				empty(t, h)
				if err := process.Keep(t.Context()); err != nil {
					t.Fatal(err)
				}
				if url := stored(t, h); url != testAccount {
					t.Errorf("in storage is %s", url)
				}
			}
			if n := logs.FilterMessageSnippet("storage lost?").Len(); n != 2 {
				t.Errorf("%d entries, want one for each time: %v", n, logs.All())
			}
		})
	}
}

// A process that starts with the empty storage registers an account, which the others' takes the place of.
func TestAccountTakesItsPlaceAgain(t *testing.T) {
	fake, h, logs := newWorld(t, Config{})
	before := bound(t, h)
	empty(t, h)
	fake.keys = map[string]string{"https://ca.test/account/0": before.Thumbprint} // the next one is new
	h.memory.bound.URL = "https://ca.test/account/0"
	if new := bound(t, New(h.Config)); new.URL != testAccount {
		t.Fatalf("registered is %s", new.URL)
	}
	if err := h.Keep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if url := stored(t, h); url != "https://ca.test/account/0" {
		t.Errorf("in storage is %s", url)
	}
	if logs.FilterMessageSnippet("storage lost?").Len() != 1 {
		t.Errorf("the log is %v", logs.All())
	}
	if kept, err := h.store.List(t.Context(), "lost"); err != nil || len(kept) != 1 {
		t.Errorf("the account that was registered is kept: %q, %v", kept, err)
	}
}

// What was taken out of storage on purpose stays out.
func TestAccountStaysAway(t *testing.T) {
	t.Run("it was deactivated", func(t *testing.T) {
		_, h, _ := newWorld(t, Config{})
		bound(t, h)
		h.memory.bound.DeactivatedAt = time.Now()
		empty(t, h)
		if err := h.Keep(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, found, err := New(h.Config).Known(t.Context()); err != nil || found {
			t.Errorf("an account is in storage: %v", err)
		}
	})
	t.Run("another one has replaced it", func(t *testing.T) {
		_, h, _ := newWorld(t, Config{})
		bound(t, h)
		old := *h.memory.bound
		old.URL = "https://ca.test/account/0"
		h.memory.bound = &old
		if err := h.store.Save(t.Context(), h.lostKey(old), old); err != nil {
			t.Fatal(err)
		}
		h.memory.bound.BoundAt = old.BoundAt.Add(-time.Second)
		if err := h.Keep(t.Context()); err != nil {
			t.Fatal(err)
		}
		if url := stored(t, h); url != testAccount {
			t.Errorf("in storage is %s", url)
		}
	})
}

// What another process has made of the account is known to one that has asked nothing meanwhile: else that one would
// put back an account that was deactivated, or a key that the CA no longer knows.
func TestAccountIsPutBackAsItWas(t *testing.T) {
	_, h, _ := newWorld(t, Config{})
	bound(t, h)
	idle := New(h.Config)
	if err := idle.Keep(t.Context()); err != nil {
		t.Fatal(err)
	}
	changed := *h.memory.bound
	changed.DeactivatedAt = time.Now()
	if err := h.store.Save(t.Context(), changed.at, changed); err != nil {
		t.Fatal(err)
	}
	if err := idle.Keep(t.Context()); err != nil {
		t.Fatal(err)
	}
	empty(t, h) // by hand
	if err := idle.Keep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, found, err := New(h.Config).Known(t.Context()); err != nil || found {
		t.Errorf("the account that was deactivated is in storage again: %v", err)
	}
}

// An account is out of storage while another one is registered in its place: a process that looks then waits for
// that, and leaves it there.
func TestAccountIsNotPutBackWhileItIsReplaced(t *testing.T) {
	_, h, logs := newWorld(t, Config{})
	bound(t, h)
	old, replacement := *h.memory.bound, *h.memory.bound
	old.URL, old.BoundAt = "https://ca.test/account/0", old.BoundAt.Add(-time.Hour)
	h.memory.bound = &old
	if err := h.store.Save(t.Context(), h.lostKey(old), old); err != nil {
		t.Fatal(err)
	}
	if err := h.store.Remove(t.Context(), old.at); err != nil {
		t.Fatal(err)
	}
	h.store.Storage = seen{h.store.Storage, func() { // between the look and the lock
		if err := h.store.Save(context.WithoutCancel(t.Context()), replacement.at, replacement); err != nil {
			t.Error(err)
		}
	}}
	// the lost one is noted after the look, too
	if back, err := h.putBack(t.Context(), old); err != nil || back.URL != testAccount {
		t.Errorf("in use is %s: %v", back.URL, err)
	}
	if url := stored(t, h); url != testAccount {
		t.Errorf("in storage is %s", url)
	}
	if logs.FilterMessageSnippet("storage lost?").Len() != 0 {
		t.Errorf("the log is %v", logs.All())
	}
}

// seen is a storage in which something happens before a lock is had.
type seen struct {
	certmagic.Storage
	happens func()
}

func (s seen) Lock(ctx context.Context, name string) error {
	s.happens()
	return s.Storage.Lock(ctx, name)
}

// A storage that cannot be written to ends nothing: the account is used from memory.
func TestAccountCannotBePutBack(t *testing.T) {
	_, h, logs := newWorld(t, Config{})
	bound(t, h)
	empty(t, h)
	broken := New(h.Config)
	broken.memory.remember(*h.memory.bound)
	broken.store.Storage = readOnly{h.store.Storage}
	for range 2 {
		if err := broken.Keep(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if n := logs.FilterMessageSnippet("could not be written back").Len(); n != 1 {
		t.Errorf("%d entries, want one: %v", n, logs.All())
	}
}

// readOnly is a storage that takes nothing.
type readOnly struct{ certmagic.Storage }

func (readOnly) Store(context.Context, string, []byte) error { return errors.New("read only") }
