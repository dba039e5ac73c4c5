package publish

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Whatever is added and removed by us and by others, through providers that replace, empty and
// fail, and however far a server is behind: what others have stays, and what they have removed
// does not come back.
func TestSequencesOfRemovals(t *testing.T) {
	for seed := range uint64(2_000) {
		synctest.Test(t, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 2))
			w := newWorld(time.Minute)
			w.replaces, w.empties = rnd.IntN(2) == 0, rnd.IntN(2) == 0
			w.lag = time.Duration(rnd.IntN(200)) * time.Second
			// which server is behind cannot be distinguished from a failed write, nor from a removal
			far := w.lag > 100*time.Second
			provider := careful{w, !far && rnd.IntN(2) == 0}
			theirs := map[string]bool{}
			for step := range 8 {
				time.Sleep(time.Duration(rnd.IntN(100)) * time.Second)
				wr := w.writer()
				wr.Provider = provider
				v := fmt.Sprintf("ours %d", rnd.IntN(2))
				var err error
				switch rnd.IntN(6) {
				case 0:
					v := fmt.Sprintf("foreign %d", step)
					theirs[v] = true
					w.set(append(slices.Clone(w.values), v))
				case 1:
					for v := range theirs {
						delete(theirs, v)
						w.set(without(w.values, []string{v}))
						break
					}
				case 2:
					if far {
						continue
					}
					w.fails, w.wrote = 1, rnd.IntN(2) == 0
				case 3:
					_, err = wr.remove(t.Context(), testName, v)
				default:
					_, err = wr.add(t.Context(), testName, v)
				}
				var lost *lostError
				if errors.As(err, &lost) {
					if len(lost.Values) == 0 {
						t.Errorf("seed %d: %v", seed, err)
					}
					// putting back has failed as well, and somebody is asked to do it
					for _, v := range without(lost.Values, w.values) {
						delete(theirs, v)
					}
				}
			}
			got := slices.DeleteFunc(slices.Sorted(slices.Values(w.values)), func(v string) bool { return strings.HasPrefix(v, "ours") })
			if want := slices.Sorted(maps.Keys(theirs)); !slices.Equal(got, want) {
				t.Errorf("seed %d: lag %s, replaces %v, empties %v, %v: there are %q, want %q", seed, w.lag, w.replaces, w.empties, provider.empties, got, want)
			}
		})
		if t.Failed() {
			return
		}
	}
}
