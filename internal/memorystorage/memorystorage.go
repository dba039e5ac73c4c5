// Package memorystorage is a storage in memory: as fast as a fuzz target needs it, and one that a test on a fake
// clock can wait for. It is for tests.
package memorystorage

import (
	"bytes"
	"context"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/caddyserver/certmagic"
)

// Storage keeps files in memory. A folder is listed with all that is below it.
type Storage struct {
	mu    sync.Mutex
	files map[string][]byte
	locks map[string]chan struct{}
}

// New returns an empty Storage.
func New() *Storage {
	return &Storage{files: make(map[string][]byte), locks: make(map[string]chan struct{})}
}

// Load implements certmagic.Storage.
func (s *Storage) Load(_ context.Context, key string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if data, ok := s.files[key]; ok {
		return bytes.Clone(data), nil
	}
	return nil, fs.ErrNotExist
}

// Store implements certmagic.Storage.
func (s *Storage) Store(_ context.Context, key string, data []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files[key] = bytes.Clone(data)
	return nil
}

// Delete implements certmagic.Storage.
func (s *Storage) Delete(_ context.Context, key string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.files, key)
	return nil
}

// Exists implements certmagic.Storage.
func (s *Storage) Exists(ctx context.Context, key string) bool {
	_, err := s.Stat(ctx, key)
	return err == nil
}

// List implements certmagic.Storage.
func (s *Storage) List(_ context.Context, folder string, _ bool) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	keys := slices.DeleteFunc(slices.Sorted(maps.Keys(s.files)), func(key string) bool { return !strings.HasPrefix(key, folder+"/") })
	if len(keys) == 0 {
		return nil, fs.ErrNotExist
	}
	return keys, nil
}

// Stat implements certmagic.Storage.
func (s *Storage) Stat(_ context.Context, key string) (certmagic.KeyInfo, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	data, ok := s.files[key]
	if !ok {
		return certmagic.KeyInfo{}, fs.ErrNotExist
	}
	return certmagic.KeyInfo{Key: key, Size: int64(len(data)), IsTerminal: true}, nil
}

// Lock implements certmagic.Storage.
func (s *Storage) Lock(ctx context.Context, name string) error {
	select {
	case s.lock(name) <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Unlock implements certmagic.Storage.
func (s *Storage) Unlock(_ context.Context, name string) error {
	<-s.lock(name)
	return nil
}

func (s *Storage) lock(name string) chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.locks[name] == nil {
		s.locks[name] = make(chan struct{}, 1)
	}
	return s.locks[name]
}
