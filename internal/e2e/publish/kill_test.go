//go:build unix

package publish

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"
)

const (
	// kills is how many processes are killed for each kind of provider, slots how many are under way at a time.
	kills, slots = 30, 6
)

// A process that is killed at any point of account, publish, order, finalize and store leaves
// nothing behind that the next one does not put right: one account, one value of ours, all
// foreign values, a certificate.
func TestKilled(t *testing.T)                       { testKilled(t, false) }
func TestKilledWithAReplacingProvider(t *testing.T) { testKilled(t, true) }

func testKilled(t *testing.T, replaces bool) {
	e, a := newEnv(t, options(0))
	a.replaces = replaces
	trial := func(i int, after time.Duration) (took time.Duration, err error) {
		name := fmt.Sprintf("kill%d.%s", i, e.Name("k"))
		storage := filepath.ToSlash(filepath.Join(filepath.Dir(e.Storage), fmt.Sprintf("storage%d", i)))
		a.set(vname(name), foreign)
		p, err := e.Process(storage, sites(a, name))
		if err != nil {
			return 0, err
		}
		if err := p.Cmd.Start(); err != nil {
			return 0, err
		}
		began := time.Now()
		if after > 0 {
			if replaces && i%2 == 0 {
				// the worst moment: the provider has replaced, and nobody knows
				first := p.Cmd.Process
				a.once(vname(name), func() { _ = first.Kill() })
			} else {
				time.Sleep(after) // the random moment itself
				_ = p.Cmd.Process.Kill()
			}
			_ = p.Cmd.Wait()
			if p, err = e.Process(storage, sites(a, name)); err != nil {
				return 0, err
			}
			if err := p.Cmd.Start(); err != nil {
				return 0, err
			}
		}
		if err := stored(e, storage, name); err != nil {
			_ = p.End()
			return 0, err
		}
		took = time.Since(began)
		if err := p.End(); err != nil {
			return 0, fmt.Errorf("the second process ended badly: %w", err)
		}
		got := a.at(vname(name))
		if len(got) != 2 || !slices.Contains(got, foreign) {
			return 0, fmt.Errorf("%s killed after %s: there are %q", name, after, got)
		}
		accounts := make(map[string]bool)
		finalized := 0
		for _, o := range e.CA.Orders() {
			if slices.Contains(o.Identifiers, name) {
				accounts[o.Account] = true
				finalized++
			}
		}
		if len(accounts) != 1 || finalized > 2 {
			return 0, fmt.Errorf("%s killed after %s: %d accounts and %d orders", name, after, len(accounts), finalized)
		}
		return took, nil
	}
	whole, err := trial(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("alone it takes %s", whole)
	var wg sync.WaitGroup
	free := make(chan struct{}, slots)
	for i := range kills {
		free <- struct{}{}
		wg.Go(func() {
			defer func() { <-free }()
			if _, err := trial(i+1, time.Millisecond+rand.N(2*whole)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := len(e.CA.FailedValidations()); n != 0 {
		t.Errorf("%d failed validations", n)
	}
}
