package rollover

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"sync"
	"testing"

	"github.com/caddyserver/certmagic"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
)

var errCrash = errors.New("the process is dead")

// crashing is a process that dies at a chosen step: nothing that it does afterwards has an
// effect. The steps are before and after each request and each change of storage.
type crashing struct {
	context.Context
	cancel context.CancelFunc
	at     func(op string) bool

	mu   sync.Mutex
	dead bool
}

// step returns an error if the process is dead, or dies now.
func (c *crashing) step(op string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.dead && c.at(op) {
		c.dead = true
		c.cancel()
	}
	if c.dead {
		return errCrash
	}
	return nil
}

// crashingStorage is the storage as a crashing process sees it.
type crashingStorage struct {
	*certmagic.FileStorage
	c *crashing
}

func (s crashingStorage) Store(ctx context.Context, key string, value []byte) error {
	if err := s.c.step("before " + path.Base(key)); err != nil {
		return err
	}
	if err := s.FileStorage.Store(ctx, key, value); err != nil {
		return err
	}
	return s.c.step("after " + path.Base(key))
}

func (s crashingStorage) Unlock(ctx context.Context, name string) error {
	if s.c.step("unlock") != nil {
		return nil // the lock stays, and is removed in crash
	}
	return s.FileStorage.Unlock(ctx, name)
}

// crash runs fn in a process that dies where at says so.
func (w *world) crash(fn func(*acmepersist.Issuer, *crashing) error, at func(op string) bool) (died bool) {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.t.Context())
	defer cancel()
	c := &crashing{Context: ctx, cancel: cancel, at: at}
	iss := w.issuer(func(cfg *acmepersist.Config) {
		base := cfg.Transport
		cfg.Storage = crashingStorage{&certmagic.FileStorage{Path: w.dir}, c}
		cfg.Transport = roundTripper(func(r *http.Request) (*http.Response, error) {
			what := path.Dir(r.URL.Path)
			if what == "/" {
				what = r.URL.Path
			}
			if err := c.step("before " + what); err != nil {
				return nil, err
			}
			// what is on its way goes on
			resp, err := base.RoundTrip(r.WithContext(context.WithoutCancel(r.Context())))
			if err != nil {
				return nil, err
			}
			if err := c.step("after " + what); err != nil {
				resp.Body.Close()
				return nil, err
			}
			return resp, nil
		})
	})
	err := fn(iss, c)
	if err == nil && c.dead {
		// it had done everything but release the lock
		w.t.Log("died at the very end")
	}
	if err != nil && !c.dead {
		w.t.Fatalf("it did not die and failed: %v", err)
	}
	// other processes take a dead one's lock after ten seconds
	if err := os.RemoveAll(filepath.Join(w.dir, "locks")); err != nil {
		w.t.Fatal(err)
	}
	return c.dead
}

// everyStep runs fn in processes that die at its first step, at its second, and so on, each
// in a storage of its own, until one survives.
func everyStep(t *testing.T, w *world, least int, prepare func(*world), fn func(*acmepersist.Issuer, *crashing) error, check func(*world, string)) {
	t.Helper()
	for n := 1; ; n++ {
		trial := w.elsewhere()
		prepare(trial)
		seen, where := 0, ""
		died := trial.crash(fn, func(op string) bool {
			seen++
			if seen == n {
				where = op
			}
			return seen == n
		})
		check(trial, fmt.Sprintf("step %d, %s", n, where))
		if !died {
			if n <= least {
				t.Errorf("there were %d steps only", n-1)
			}
			return
		}
	}
}

// assertKnown checks the bound account among many that the CA has.
func (w *world) assertKnown(url, where string) {
	w.t.Helper()
	state := w.status()
	if state.Status != "valid" || state.PendingRollover || url != "" && state.URL != url || w.ca.Thumbprint(state.URL) != state.Thumbprint {
		w.t.Errorf("died at %s: the state is %+v, the CA has the key %s", where, state, w.ca.Thumbprint(url))
	}
}

func TestRollKeyDiesAtEveryStep(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "01")
	urls := make(map[string]string)
	everyStep(t, w, 10, func(trial *world) { urls[trial.dir] = trial.bind() },
		func(iss *acmepersist.Issuer, ctx *crashing) error {
			_, err := iss.RollKey(ctx)
			return err
		},
		func(trial *world, where string) {
			url := urls[trial.dir]
			if a, err := trial.issuer().Account(t.Context()); err != nil || a.URL != url {
				t.Errorf("died at %s: an ordinary session has %+v, %v", where, a, err)
			}
			if s := trial.status(); s.Status != "valid" {
				t.Errorf("died at %s: the state is %+v", where, s)
			}
			if r := trial.roll(trial.issuer()); r.URL != url {
				t.Errorf("died at %s: rolled %+v", where, r)
			}
			trial.assertKnown(url, where)
		})
}

func TestBindingDiesAtEveryStep(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "01")
	before := 0
	everyStep(t, w, 6, func(*world) { before = len(w.ca.Accounts()) },
		func(iss *acmepersist.Issuer, ctx *crashing) error {
			_, err := iss.Account(ctx)
			return err
		},
		func(trial *world, where string) {
			trial.bind()
			trial.assertKnown("", where)
			if n := len(w.ca.Accounts()); n != before+1 {
				t.Errorf("died at %s: %d accounts were registered", where, n-before)
			}
		})
}

func TestImportDiesAtEveryStep(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "01")
	account := w.bind()
	old := w.export()
	w.roll(w.issuer())
	data := w.export()
	for _, prepare := range []func(*world){
		func(*world) {},
		func(trial *world) { trial.put(old) },
	} {
		everyStep(t, w, 4, prepare,
			func(iss *acmepersist.Issuer, ctx *crashing) error {
				_, err := iss.ImportAccount(ctx, data)
				return err
			},
			func(trial *world, where string) {
				if _, err := trial.importing(data); err != nil {
					t.Errorf("died at %s: %v", where, err)
				}
				trial.assertKnown(account, where)
			})
	}
}
