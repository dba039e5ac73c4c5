// Package memorystorage is a storage that is as fast as a fuzz target needs it. It is for tests.
package memorystorage

import (
	"bytes"
	"context"
	"io/fs"

	"github.com/caddyserver/certmagic"
)

// Storage keeps files in memory, for one goroutine. It can load, store and delete; whatever else a
// storage can do panics.
type Storage struct {
	certmagic.Storage
	Files map[string][]byte
}

// New returns an empty Storage.
func New() Storage { return Storage{Files: make(map[string][]byte)} }

// Load implements certmagic.Storage.
func (s Storage) Load(_ context.Context, key string) ([]byte, error) {
	if data, ok := s.Files[key]; ok {
		return data, nil
	}
	return nil, fs.ErrNotExist
}

// Store implements certmagic.Storage.
func (s Storage) Store(_ context.Context, key string, data []byte) error {
	s.Files[key] = bytes.Clone(data)
	return nil
}

// Delete implements certmagic.Storage.
func (s Storage) Delete(_ context.Context, key string) error {
	delete(s.Files, key)
	return nil
}
