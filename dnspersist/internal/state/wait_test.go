package state

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// A lock that is not had after a minute is logged with what is known of it, once for all who wait, and
// again from time to time.
func TestLockWaitIsLogged(t *testing.T) {
	for what, ahead := range map[string]time.Duration{"held": 0, "of the future": 240 * time.Hour} {
		t.Run(what, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, "locks", "dns_persist_x.lock")
			if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
				t.Fatal(err)
			}
			synctest.Test(t, func(t *testing.T) {
				core, logs := observer.New(zap.WarnLevel)
				s := New(&certmagic.FileStorage{Path: dir}, "https://ca.test/dir")
				s.Logger = zap.New(core)
				touch := func() {
					at := time.Now().Add(ahead).Format(time.RFC3339Nano)
					if err := os.WriteFile(file, fmt.Appendf(nil, `{"created":%q,"updated":%q}`, at, at), 0o600); err != nil {
						t.Error(err)
					}
				}
				touch()
				ctx, cancel := context.WithCancel(t.Context())
				var wg sync.WaitGroup
				wg.Go(func() { // somebody who keeps it fresh
					for ctx.Err() == nil {
						time.Sleep(time.Second)
						touch()
					}
				})
				for range 10 {
					wg.Go(func() {
						if err := s.Locked(ctx, "dns_persist_x", nil, func() error { return nil }); !errors.Is(err, context.Canceled) {
							t.Errorf("the lock: %v", err)
						}
					})
				}
				time.Sleep(50 * time.Second)
				if logs.Len() != 0 {
					t.Errorf("after 50 s: %v", logs.All())
				}
				time.Sleep(20 * time.Second)
				if logs.Len() != 1 {
					t.Fatalf("after 70 s: %v", logs.All())
				}
				if said := logs.All()[0].ContextMap(); said["lock"] != "dns_persist_x" || said["lock_file"] != file || said["todo"] == nil {
					t.Errorf("it lacks something: %v", said)
				}
				time.Sleep(9 * time.Minute)
				if logs.Len() != 1 {
					t.Errorf("after ten minutes: %v", logs.All())
				}
				time.Sleep(2 * time.Minute)
				if logs.Len() != 2 {
					t.Errorf("after twelve minutes: %v", logs.All())
				}
				cancel()
				wg.Wait()
			})
		})
	}
}

// The entry of who waits for the storage itself names the file and what to do.
func TestLockHolder(t *testing.T) {
	dir := t.TempDir()
	storage := &certmagic.FileStorage{Path: dir}
	s := New(storage, "https://ca.test/dir")
	text := func() string { return fmt.Sprint(s.holder("dns_persist_x")) }
	if err := storage.Lock(t.Context(), "dns_persist_x"); err != nil {
		t.Fatal(err)
	}
	file := s.lockFile("dns_persist_x")
	if _, err := os.Stat(file); err != nil {
		t.Errorf("CertMagic keeps it elsewhere: %v", err)
	}
	if got := text(); !strings.Contains(got, "another Caddy or command on this storage holds it") || !strings.Contains(got, file) {
		t.Errorf("a lock that is held: %s", got)
	}
	if err := storage.Unlock(t.Context(), "dns_persist_x"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(`{"created":"2999-01-01T00:00:00Z","updated":"2999-01-01T00:00:00Z"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := text(); !strings.Contains(got, "lies in the future") || !strings.Contains(got, file) {
		t.Errorf("a lock of the future: %s", got)
	}
	for _, garbage := range []string{"x", "\x00\x00", `{"created":1}`} {
		if err := os.WriteFile(file, []byte(garbage), 0o600); err != nil {
			t.Fatal(err)
		}
		err := s.Locked(t.Context(), "dns_persist_x", nil, func() error { return nil })
		if err == nil || !strings.Contains(err.Error(), "remove the file "+file) {
			t.Errorf("a lock file of %q: %v", garbage, err)
		}
	}
}
