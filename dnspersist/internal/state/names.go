package state

import (
	"context"
	"hash/fnv"
	"path"
	"strings"
	"sync"

	"github.com/dnspersist/caddy-dnspersist/internal/walltime"
)

// nameLocks are the process's: a name and its wildcard share a file, and may have issuers of
// their own.
var nameLocks [256]sync.Mutex

// lockName locks the file of a name, and some others with it: thousands of names that start together
// must not wait for the storage one by one.
func lockName(key string) *sync.Mutex {
	h := fnv.New32a()
	_, _ = h.Write([]byte(key))
	mu := &nameLocks[h.Sum32()%uint32(len(nameLocks))]
	mu.Lock()
	return mu
}

func (s Store) nameKey(validationName string) string {
	return s.Key("names", Safe(validationName)+".json")
}

// Name returns what is remembered of a validation name.
func (s Store) Name(ctx context.Context, validationName string) (name Name, err error) {
	err = s.UpdateName(ctx, validationName, func(n *Name) bool { name = *n; return false })
	return name, err
}

// UpdateName loads what is remembered of a validation name, has change change it, and saves it if change
// returns true.
// Nothing is cached: other nodes of a cluster count their attempts in the same place.
func (s Store) UpdateName(ctx context.Context, validationName string, change func(*Name) bool) error {
	n := &Name{Name: validationName}
	key := s.nameKey(validationName)
	defer lockName(key).Unlock()
	_, lost, err := s.Recall(ctx, key, n)
	if err != nil {
		return err
	}
	now := walltime.Now()
	n.Repair(now)
	if lost {
		n.spend(now)
	}
	changed := change(n)
	if !changed && (!lost || !s.isLogged()) {
		return nil // a command that only looks leaves a damaged file to Caddy, which logs it
	}
	if err := s.Save(ctx, key, n); err != nil && changed {
		return err
	}
	return nil
}

// ValidationNames lists the validation names of which something is remembered.
func (s Store) ValidationNames(ctx context.Context) []string {
	keys, _ := s.List(ctx, "names")
	list := make([]string, 0, len(keys))
	for _, k := range keys {
		list = append(list, nameOf(k))
	}
	return list
}

func nameOf(key string) string { return strings.TrimSuffix(path.Base(key), ".json") }

// Names returns what is remembered of all names. One whose file cannot be read is not among
// them: it is learned anew when its certificate is obtained.
func (s Store) Names(ctx context.Context) ([]Name, error) {
	keys, err := s.List(ctx, "names")
	if err != nil {
		return nil, err
	}
	var all []Name
	for _, k := range keys {
		var n Name
		found, lost, err := s.Recall(ctx, k, &n)
		switch {
		case err != nil:
			return nil, err
		case found:
			n.Repair(walltime.Now())
			all = append(all, n)
		case lost:
			// written anew, for the next process would find it damaged again
			if err := s.UpdateName(ctx, nameOf(k), func(*Name) bool { return false }); err != nil {
				return nil, err
			}
		}
	}
	return all, nil
}
