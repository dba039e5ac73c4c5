package state

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"reflect"
	"strings"
	"sync"

	"go.uber.org/zap"
)

// kinds are the files below the folder of a CA. What is not a cache cannot be had again: keys of
// accounts, and what was written into zones. A cache that cannot be read is a lost one.
var kinds = []struct {
	pattern string
	cache   bool
}{
	{"account.json", false},
	{"account_*.json", false},
	{"lost/*.json", false},
	{"published/*.json", false},
	{"ca.json", true},
	{"limits/*.json", true},
	{"orders/*.json", true},
	{"names/*.json", true},
	{"targets/*.json", true},
	{"poller.json", true},
}

// kind reports whether a file is a cache; known is false for one that is in no list, which then counts as
// precious.
func (s Store) kind(key string) (cache, known bool) {
	for _, kind := range kinds {
		if ok, _ := path.Match(kind.pattern, s.relative(key)); ok {
			return kind.cache, true
		}
	}
	return false, false
}

func (s Store) relative(key string) string { return strings.TrimPrefix(key, s.Folder+"/") }

// errVersion is that of a file which another release has written.
var errVersion = errors.New("which this release does not know")

// DamagedError is that of a file in storage that is there and cannot be read, while the storage works.
type DamagedError struct {
	Key string
	Err error

	data []byte // what it holds, as far as that is known
}

func (e *DamagedError) Error() string {
	todo := "restore it from a backup"
	switch {
	case errors.Is(e.Err, fs.ErrPermission):
		return fmt.Sprintf("reading %s from storage: %v; run this as the user that Caddy runs as", e.Key, e.Err)
	case strings.HasPrefix(path.Base(e.Key), "account"):
		todo += ", for the records name its account; only where no record does, remove it, and Caddy binds an account anew"
	}
	if errors.Is(e.Err, errVersion) {
		todo = "use the release that has written it, or " + todo
	}
	return fmt.Sprintf("reading %s from storage: the file is damaged: %v; %s", e.Key, e.Err, todo)
}

func (e *DamagedError) Unwrap() error { return e.Err }

// damage returns what is wrong with a file that cannot be read; nil if it is the storage that does not
// work.
func (s Store) damage(ctx context.Context, key string, err error) *DamagedError {
	if errors.Is(err, fs.ErrPermission) {
		return &DamagedError{Key: key, Err: err}
	}
	if info, statErr := s.Storage.Stat(ctx, key); statErr == nil && !info.IsTerminal {
		return &DamagedError{Key: key, Err: errors.New("it is a folder")}
	}
	return nil
}

// decode decodes the JSON of a file into v, which stays as it is if that fails.
func decode(data []byte, v any) error {
	fresh := reflect.New(reflect.TypeOf(v).Elem())
	data = bytes.TrimSpace(data)
	if len(data) == 0 {
		return errors.New("it is empty")
	}
	if string(data) == "null" {
		return errors.New("it holds null")
	}
	if err := json.Unmarshal(data, fresh.Interface()); err != nil {
		return fmt.Errorf("it does not hold the JSON that it should: %w", err)
	}
	// no file of this release has one
	var head struct {
		Version json.RawMessage `json:"version"`
	}
	if bytes.Contains(data, []byte(`"version"`)) && json.Unmarshal(data, &head) == nil && head.Version != nil {
		return fmt.Errorf("it is of version %.20s, %w", head.Version, errVersion)
	}
	if c, ok := fresh.Interface().(interface{ Check() error }); ok {
		if err := c.Check(); err != nil {
			return fmt.Errorf("it does not hold what it should: %w", err)
		}
	}
	reflect.ValueOf(v).Elem().Set(fresh.Elem())
	return nil
}

// asides are the files that were set aside by this process, so that each is reported once.
var asides sync.Map

// isLogged reports whether somebody reads the warnings: commands have no log.
func (s Store) isLogged() bool { return s.Logger != nil && s.Logger.Core().Enabled(zap.WarnLevel) }

func (s Store) aside(key string) string {
	if named, ok := s.Storage.(fmt.Stringer); ok {
		return named.String() + " " + key
	}
	return fmt.Sprintf("%T %s", s.Storage, key)
}

// SetAside copies a damaged file into the folder "damaged", and logs that once. The file itself
// stays until it is written anew: to remove it could hit what another node has written meanwhile.
func (s Store) SetAside(ctx context.Context, damaged *DamagedError, consequence string) {
	if _, known := asides.LoadOrStore(s.aside(damaged.Key), true); known || s.Logger == nil {
		return
	}
	fields := []zap.Field{zap.String("storage_key", damaged.Key), zap.String("consequence", consequence), zap.NamedError("damage", damaged.Err)}
	if to, err := s.copyAside(ctx, damaged); err != nil {
		fields = append(fields, zap.NamedError("not_set_aside", err))
	} else if to != "" {
		fields = append(fields, zap.String("set_aside_as", to))
	}
	s.Logger.Warn("a file in storage cannot be read; going on without it", fields...)
}

// mostAside is how many files of a folder that has taken the place of a file are set aside.
const mostAside = 100

func (s Store) copyAside(ctx context.Context, damaged *DamagedError) (to string, err error) {
	to = s.Key("damaged", s.relative(damaged.Key))
	if err := s.Remove(ctx, to); err != nil { // a former one, which may be a folder
		return "", err
	}
	if damaged.data != nil {
		return to, s.Storage.Store(ctx, to, damaged.data)
	}
	info, err := s.Storage.Stat(ctx, damaged.Key)
	if err != nil || info.IsTerminal {
		return "", err // it is not to be read, but can be written
	}
	inside, err := s.Storage.List(ctx, damaged.Key, true)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("listing %s in storage: %w", damaged.Key, err)
	}
	if len(inside) > mostAside {
		return "", fmt.Errorf("the folder %s has taken the place of a file and holds more than %d others: move it out of the storage", damaged.Key, mostAside)
	}
	for _, key := range inside {
		info, err := s.Storage.Stat(ctx, key)
		if err != nil {
			return "", fmt.Errorf("looking at %s in storage: %w", key, err)
		}
		if !info.IsTerminal {
			continue
		}
		data, err := s.Storage.Load(ctx, key)
		if err == nil {
			err = s.Storage.Store(ctx, s.Key("damaged", s.relative(key)), data)
		}
		if err != nil {
			return "", fmt.Errorf("moving %s away: %w", key, err)
		}
	}
	// a folder cannot be written over
	return to, s.Remove(ctx, damaged.Key)
}
