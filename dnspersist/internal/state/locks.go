package state

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"
)

// turns lets the jobs of this process take turns before they ask for a storage lock: a storage
// may look only once a second whether a lock is free. Only names that somebody holds or waits
// for are kept, for a platform has a great many.
var turns = struct {
	mu    sync.Mutex
	names map[string]*turn
}{names: make(map[string]*turn)}

type turn struct {
	taken chan struct{} // has room for one
	users int           // who have it or wait for it
}

// takeTurn waits until no other job of this process is at the name.
func takeTurn(ctx context.Context, name string) (release func(), err error) {
	turns.mu.Lock()
	t := turns.names[name]
	if t == nil {
		t = &turn{taken: make(chan struct{}, 1)}
		turns.names[name] = t
	}
	t.users++
	turns.mu.Unlock()
	leave := func() {
		turns.mu.Lock()
		defer turns.mu.Unlock()
		if t.users--; t.users == 0 {
			delete(turns.names, name)
		}
	}
	select {
	case t.taken <- struct{}{}:
		return func() { <-t.taken; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, fmt.Errorf("waiting for the turn at %s: %w", name, context.Cause(ctx))
	}
}

const (
	// waitReported is after how long a wait for a lock is logged, waitAgain how long after that again.
	waitReported = time.Minute
	// turnLater is how much later that is for those who wait for another job of this process: that one
	// knows more.
	turnLater = 5 * time.Second
	waitAgain = 10 * time.Minute
)

// lockWait is a job that waits for a lock.
type lockWait struct {
	store Store
	name  string
	since time.Time
	timer *time.Timer

	mu sync.Mutex
	// turn is true once it waits for the storage, and not for another job of this process.
	turn     bool
	ended    bool
	reporter bool
}

// lockReports are the locks whose wait is being logged, by one of those who wait.
var lockReports sync.Map

// reportWait begins a wait that is logged when it takes long.
func (s Store) reportWait(name string) *lockWait {
	w := &lockWait{store: s, name: name, since: time.Now()}
	if s.Logger == nil {
		return w
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer = time.AfterFunc(waitReported+turnLater, w.report)
	return w
}

// hasTurn notes that it is the storage that is waited for from now on.
func (w *lockWait) hasTurn() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.turn = true
	if w.timer != nil {
		w.timer.Reset(waitReported)
	}
}

// end ends the wait.
func (w *lockWait) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended {
		return
	}
	w.ended = true
	if w.timer != nil {
		w.timer.Stop()
	}
	if w.reporter {
		lockReports.Delete(w.store.aside(w.name))
	}
}

func (w *lockWait) report() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended {
		return
	}
	if !w.reporter {
		if _, other := lockReports.LoadOrStore(w.store.aside(w.name), true); other {
			w.timer.Reset(waitAgain)
			return
		}
		w.reporter = true
	}
	w.timer.Reset(waitAgain)
	fields := []zap.Field{zap.String("lock", w.name), zap.Duration("waited", time.Since(w.since).Round(time.Second))}
	if w.turn {
		fields = append(fields, w.store.holder(w.name)...)
	} else {
		fields = append(fields, zap.String("held_by", "another job of this process"))
	}
	w.store.Logger.Warn("waiting for a lock in the storage", fields...)
}

// lockFile is where CertMagic's storage of files keeps a lock, empty for another storage.
func (s Store) lockFile(name string) string {
	if files, ok := s.Storage.(*certmagic.FileStorage); ok {
		return filepath.Join(files.Path, "locks", Safe(name)+".lock")
	}
	return ""
}

// removing is how a lock is removed by hand.
func (s Store) removing(name string) string {
	if file := s.lockFile(name); file != "" {
		return "remove the file " + file
	}
	return fmt.Sprintf("remove the lock %s with the tools of the storage (%T)", name, s.Storage)
}

// holder is what can be known of who holds a lock, and what to do about it.
func (s Store) holder(name string) []zap.Field {
	todo := "another Caddy or command on this storage holds it; if there is none, " + s.removing(name)
	file := s.lockFile(name)
	if file == "" {
		return []zap.Field{zap.String("todo", todo)}
	}
	var held struct {
		Created time.Time `json:"created"`
		Updated time.Time `json:"updated"`
	}
	if data, err := os.ReadFile(file); err != nil || json.Unmarshal(data, &held) != nil {
		return []zap.Field{zap.String("lock_file", file), zap.String("todo", todo)}
	}
	if latest := held.Updated; time.Until(latest) > time.Minute {
		todo = "the time in the lock file lies in the future, so it is never taken for one that was left behind; " +
			"if no Caddy with a clock that is ahead holds it, " + s.removing(name)
	}
	return []zap.Field{
		zap.String("lock_file", file), zap.Time("locked_at", held.Created), zap.Time("refreshed_at", held.Updated), zap.String("todo", todo),
	}
}
