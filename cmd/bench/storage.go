package main

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/certmagic"
)

func init() { caddy.RegisterModule(storageModule{}) }

// storageModule is Caddy's file storage, with all that is done with it counted.
type storageModule struct {
	Root string `json:"root"`
}

// CaddyModule returns the Caddy module information.
func (storageModule) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "caddy.storage.bench", New: func() caddy.Module { return new(storageModule) }}
}

// CertMagicStorage implements caddy.StorageConverter.
func (s storageModule) CertMagicStorage() (certmagic.Storage, error) {
	return &countingStorage{FileStorage: &certmagic.FileStorage{Path: s.Root}}, nil
}

// counts is what was done with storage in this process.
var counts = &counter{certificates: make(map[string]time.Time), came: make(chan struct{}, 1)}

type op struct {
	Count int           `json:"count"`
	Took  time.Duration `json:"took"`
}

// counter must not make anybody wait: a thousand jobs come by.
type counter struct {
	ops sync.Map // of *tally, by what was done

	mu           sync.Mutex
	certificates map[string]time.Time // by name
	came         chan struct{}        // one more certificate
}

type tally struct{ count, took atomic.Int64 }

// note counts what is done with a key, by the key's kind.
func (c *counter) note(what, key string, start time.Time) {
	now := time.Now()
	kind := what + " " + kindOf(key)
	t, ok := c.ops.Load(kind)
	if !ok {
		t, _ = c.ops.LoadOrStore(kind, new(tally))
	}
	t.(*tally).count.Add(1)
	t.(*tally).took.Add(int64(now.Sub(start)))
	parts := strings.Split(key, "/")
	if what != "store" || parts[0] != "certificates" || !strings.HasSuffix(key, ".json") {
		return
	}
	// the last of a certificate's three files
	c.mu.Lock()
	c.certificates[parts[len(parts)-2]] = now
	c.mu.Unlock()
	select {
	case c.came <- struct{}{}:
	default:
	}
}

// all is what was done until now.
func (c *counter) all() map[string]op {
	ops := make(map[string]op)
	c.ops.Range(func(kind, t any) bool {
		ops[kind.(string)] = op{int(t.(*tally).count.Load()), time.Duration(t.(*tally).took.Load())}
		return true
	})
	return ops
}

// kindOf is the folder of a key, without the CA's name and those of names.
func kindOf(key string) string {
	parts := strings.Split(key, "/")
	switch {
	case parts[0] == "dns_persist" && len(parts) == 3:
		return parts[0] + "/" + parts[2]
	case parts[0] == "dns_persist" && len(parts) > 3:
		return parts[0] + "/" + parts[2] + "/*"
	case len(parts) > 1:
		return parts[0]
	case strings.HasPrefix(key, "rw_test_"): // CertMagic tries the storage before each attempt
		return "rw_test_*"
	case strings.HasPrefix(key, "issue_cert_"):
		return "issue_cert_*"
	case strings.HasPrefix(key, "dns_persist_"):
		before, _, _ := strings.Cut(key, "127.0.0.1")
		return before + "*"
	}
	return "others"
}

// countingStorage counts; what it does not have itself is FileStorage's.
type countingStorage struct{ *certmagic.FileStorage }

func (s *countingStorage) Store(ctx context.Context, key string, value []byte) error {
	defer counts.note("store", key, time.Now())
	return s.FileStorage.Store(ctx, key, value)
}

func (s *countingStorage) Load(ctx context.Context, key string) ([]byte, error) {
	defer counts.note("load", key, time.Now())
	return s.FileStorage.Load(ctx, key)
}

func (s *countingStorage) Delete(ctx context.Context, key string) error {
	defer counts.note("delete", key, time.Now())
	return s.FileStorage.Delete(ctx, key)
}

func (s *countingStorage) Exists(ctx context.Context, key string) bool {
	defer counts.note("exists", key, time.Now())
	return s.FileStorage.Exists(ctx, key)
}

func (s *countingStorage) List(ctx context.Context, prefix string, recursive bool) ([]string, error) {
	defer counts.note("list", prefix, time.Now())
	return s.FileStorage.List(ctx, prefix, recursive)
}

func (s *countingStorage) Stat(ctx context.Context, key string) (certmagic.KeyInfo, error) {
	defer counts.note("stat", key, time.Now())
	return s.FileStorage.Stat(ctx, key)
}

func (s *countingStorage) Lock(ctx context.Context, name string) error {
	defer counts.note("lock", name, time.Now())
	return s.FileStorage.Lock(ctx, name)
}

func (s *countingStorage) Unlock(ctx context.Context, name string) error {
	defer counts.note("unlock", name, time.Now())
	return s.FileStorage.Unlock(ctx, name)
}

// Interface guards
var (
	_ caddy.StorageConverter = (*storageModule)(nil)
	_ certmagic.Storage      = (*countingStorage)(nil)
	_ certmagic.TryLocker    = (*countingStorage)(nil)
)
