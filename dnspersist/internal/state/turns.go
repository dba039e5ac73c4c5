package state

import (
	"context"
	"fmt"
	"sync"
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
