//go:build long && unix

package cluster

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/certmagic"
	"github.com/redis/go-redis/v9"
)

// storage is a storage in Redis as people run it. Its layout and its locks are those of
// github.com/pberkel/caddy-storage-redis v1.8.1 (commit 230a328, July 2026), which is a rewrite of
// github.com/gamalan/caddy-tlsredis v0.3.1 (commit 553943f, November 2023); both lock with
// github.com/bsm/redislock. Neither module can be had here, so this is written after them.
//
// What matters to us, and is as in the former:
//
//   - A lock is a key with a random token that lives for 5 seconds (the latter: 10), and is refreshed
//     every 3 seconds, and released, only while it has the token. Who waits for one asks every second.
//   - A holder that has lost its lock is not told: the refreshing ends, the work goes on, and Unlock
//     reports an error. There are no fencing tokens.
//   - There is no TryLock (CertMagic then waits for the lock of a renewal's information in place of
//     skipping it), and no RenewLockLease.
//   - The folders are sorted sets beside the values, which are written first: a process that is killed
//     in between leaves a file in a listing that cannot be read. A folder that does not exist is
//     listed as empty, and is no fs.ErrNotExist. (The latter scans all keys, and lists by prefix.)
//   - Errors are wrapped as texts only: errors.Is finds fs.ErrNotExist, and nothing else.
//   - Exists is false when Redis does not answer.
//   - A configuration that is loaded while Redis does not answer fails.
//   - The client has go-redis' defaults: 10 connections for each CPU, 3 seconds for an answer, three
//     repetitions, and a context's deadline does not end a command.
//
// Differences: Redis Cluster and Sentinel, TLS, compression, encryption, and a client that outlives
// reloads are left out. The latter's Store writes no folders, its Delete reports a key that is not
// there, its refreshing ends with the first error, so that one lost packet costs the lock, and
// Unlock after that leaves the lock until its time is over.
type storage struct {
	Address string `json:"address,omitempty"`

	client *redis.Client
	held   sync.Map // of what is held, by key: lock
}

type lock struct {
	token string
	stop  context.CancelFunc
}

const (
	lockFor     = 5 * time.Second
	lockRefresh = 3 * time.Second
	lockPoll    = time.Second
)

func init() { caddy.RegisterModule(new(storage)) }

func (*storage) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "caddy.storage.redis_for_tests", New: func() caddy.Module { return new(storage) }}
}

func (s *storage) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if !d.Args(&s.Address) {
		return d.ArgErr()
	}
	return nil
}

func (s *storage) Provision(ctx caddy.Context) error {
	s.client = redis.NewClient(&redis.Options{Addr: s.Address})
	return s.client.Ping(ctx).Err()
}

func (s *storage) Cleanup() error { return s.client.Close() }

func (s *storage) CertMagicStorage() (certmagic.Storage, error) { return s, nil }

func (s *storage) String() string { return "redis_for_tests:" + s.Address }

func fileKey(key string) string { return path.Join("caddy", key) }

func lockKey(name string) string { return fileKey(path.Join("locks", name)) }

// file is a value with what is known of it.
type file struct {
	Value    []byte    `json:"value"`
	Modified time.Time `json:"modified"`
	Size     int64     `json:"size"`
}

func (s *storage) Store(ctx context.Context, key string, value []byte) error {
	f := file{Value: value, Modified: time.Now(), Size: int64(len(value))}
	data, err := json.Marshal(f)
	if err != nil {
		return err
	}
	if err := s.enter(ctx, fileKey(key), float64(f.Modified.Unix()), ""); err != nil {
		return fmt.Errorf("creating the folders of %s: %v", key, err) //nolint:errorlint // see storage
	}
	if err := s.client.Set(ctx, fileKey(key), data, 0).Err(); err != nil {
		return fmt.Errorf("setting %s: %v", key, err) //nolint:errorlint // see storage
	}
	return nil
}

// enter enters a key into the listing of its folder, and folders that are new into theirs.
func (s *storage) enter(ctx context.Context, key string, score float64, suffix string) error {
	dir := path.Dir(key)
	if dir == "." {
		return nil
	}
	added, err := s.client.ZAdd(ctx, dir, redis.Z{Score: score, Member: path.Base(key) + suffix}).Result()
	if err != nil || added == 0 {
		return err
	}
	return s.enter(ctx, dir, score, "/")
}

func (s *storage) load(ctx context.Context, key string) (f file, err error) {
	data, err := s.client.Get(ctx, fileKey(key)).Bytes()
	if errors.Is(err, redis.Nil) {
		return f, fs.ErrNotExist
	}
	if err != nil {
		return f, fmt.Errorf("getting %s: %v", key, err) //nolint:errorlint // see storage
	}
	return f, json.Unmarshal(data, &f)
}

func (s *storage) Load(ctx context.Context, key string) ([]byte, error) {
	f, err := s.load(ctx, key)
	return f.Value, err
}

func (s *storage) Stat(ctx context.Context, key string) (certmagic.KeyInfo, error) {
	f, err := s.load(ctx, key)
	if err != nil {
		return certmagic.KeyInfo{}, err
	}
	return certmagic.KeyInfo{Key: key, Modified: f.Modified, Size: f.Size, IsTerminal: true}, nil
}

func (s *storage) Exists(ctx context.Context, key string) bool {
	n, err := s.client.Exists(ctx, fileKey(key)).Result()
	return err == nil && n > 0
}

func (s *storage) Delete(ctx context.Context, key string) error {
	if err := s.leave(ctx, fileKey(key), ""); err != nil {
		return fmt.Errorf("deleting the folders of %s: %v", key, err) //nolint:errorlint // see storage
	}
	if err := s.client.Del(ctx, fileKey(key)).Err(); err != nil {
		return fmt.Errorf("deleting %s: %v", key, err) //nolint:errorlint // see storage
	}
	return nil
}

// leave takes a key out of the listing of its folder, and folders that are empty then out of theirs.
func (s *storage) leave(ctx context.Context, key, suffix string) error {
	dir := path.Dir(key)
	if dir == "." {
		return nil
	}
	if err := s.client.ZRem(ctx, dir, path.Base(key)+suffix).Err(); err != nil {
		return err
	}
	if n, err := s.client.Exists(ctx, dir).Result(); err != nil || n > 0 {
		return err
	}
	return s.leave(ctx, dir, "/")
}

func (s *storage) List(ctx context.Context, dir string, recursive bool) ([]string, error) {
	members, err := s.client.ZRange(ctx, fileKey(dir), 0, -1).Result()
	if err != nil {
		return nil, fmt.Errorf("listing %s: %v", dir, err) //nolint:errorlint // see storage
	}
	var keys []string
	for _, member := range members {
		name, isFolder := strings.CutSuffix(member, "/")
		key := path.Join(dir, name)
		if !recursive || !isFolder {
			keys = append(keys, key)
			continue
		}
		below, err := s.List(ctx, key, true)
		if err != nil {
			return keys, err
		}
		keys = append(keys, below...)
	}
	return keys, nil
}

var (
	obtain  = redis.NewScript(`if redis.call("get", KEYS[1]) == ARGV[1] or redis.call("set", KEYS[1], ARGV[1], "NX", "PX", ARGV[2]) then return 1 else return 0 end`)
	refresh = redis.NewScript(`if redis.call("get", KEYS[1]) == ARGV[1] then return redis.call("pexpire", KEYS[1], ARGV[2]) else return 0 end`)
	release = redis.NewScript(`if redis.call("get", KEYS[1]) == ARGV[1] then return redis.call("del", KEYS[1]) else return 0 end`)
)

func (s *storage) Lock(ctx context.Context, name string) error {
	key, token := lockKey(name), rand.Text()
	for {
		got, err := obtain.Run(ctx, s.client, []string{key}, token, lockFor.Milliseconds()).Int()
		if err != nil {
			return fmt.Errorf("obtaining the lock %s: %v", name, err) //nolint:errorlint // see storage
		}
		if got == 1 {
			alive, stop := context.WithCancel(context.Background()) //nolint:gosec // Unlock stops it
			s.held.Store(key, lock{token, stop})
			go s.keep(alive, key, token)
			return nil
		}
		timer := time.NewTimer(lockPoll)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}

// keep refreshes a lock until it is given back or was lost.
func (s *storage) keep(ctx context.Context, key, token string) {
	tick := time.NewTicker(lockRefresh)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if still, err := refresh.Run(ctx, s.client, []string{key}, token, lockFor.Milliseconds()).Int(); err == nil && still == 0 {
			return
		}
	}
}

func (s *storage) Unlock(ctx context.Context, name string) error {
	key := lockKey(name)
	held, found := s.held.LoadAndDelete(key)
	if !found {
		return nil
	}
	l := held.(lock)
	l.stop()
	released, err := release.Run(ctx, s.client, []string{key}, l.token).Int()
	if err != nil || released == 0 {
		return fmt.Errorf("releasing the lock %s: it is not held (%v)", name, err) //nolint:errorlint // see storage
	}
	return nil
}
