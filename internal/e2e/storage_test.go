package e2e

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/certmagic"

	"github.com/dnspersist/caddy-dnspersist/internal/e2e/harness"
)

func init() { caddy.RegisterModule(fullStorage{}) }

// fullStorage is a storage of files on a disk that may be full.
type fullStorage struct {
	*certmagic.FileStorage
}

var diskFull atomic.Bool

func (fullStorage) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "caddy.storage.full_test", New: func() caddy.Module { return &fullStorage{new(certmagic.FileStorage)} }}
}

func (f *fullStorage) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if !d.Args(&f.Path) {
		return d.ArgErr()
	}
	return nil
}

func (f *fullStorage) CertMagicStorage() (certmagic.Storage, error) { return f, nil }

func (f *fullStorage) Store(ctx context.Context, key string, value []byte) error {
	if diskFull.Load() {
		return fmt.Errorf("writing %s: %w", key, syscall.ENOSPC)
	}
	return f.FileStorage.Store(ctx, key, value)
}

func (f *fullStorage) Lock(ctx context.Context, name string) error {
	if diskFull.Load() {
		return fmt.Errorf("creating lock file: %w", syscall.ENOSPC)
	}
	return f.FileStorage.Lock(ctx, name)
}

// A disk that is full when Caddy starts costs no certificate once it is not full any more: CertMagic
// gives the names up, and nobody reloads.
func TestStorageFullAtStart(t *testing.T) {
	e := harness.New(t, harness.Options{})
	name := e.Name("full")
	e.Publish(name, e.Value(e.Bind(), false))
	diskFull.Store(true)
	defer diskFull.Store(false)
	e.Load(strings.Replace(e.Global(), "storage file_system", "storage full_test", 1) + e.Site(name, e.Block()))
	e.Eventually(harness.Soon, "CertMagic to give up, and the error", func() error {
		if err := harness.AtLeast(len(e.Logs("job failed")), 1); err != nil {
			return err
		}
		return harness.AtLeast(len(e.Logs("the storage cannot be used")), 1)
	})
	if n := len(e.Logs("the storage cannot be used")); n != 1 {
		t.Errorf("it is said %d times", n)
	}
	diskFull.Store(false)
	e.WaitTrusted(name, harness.Soon)
	e.AssertClean(1)
}
