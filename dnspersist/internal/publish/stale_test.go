package publish

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libdns/libdns"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// behind is a world whose second server shows something else until a time after the first write.
type behind struct {
	*world
	shows   []string
	until   time.Duration
	changed time.Time
}

func (b *behind) read(ctx context.Context, name string) (published, error) {
	s, err := b.world.read(ctx, name)
	if b.writes > 0 && b.changed.IsZero() {
		b.changed = time.Now()
	}
	if b.changed.IsZero() || time.Since(b.changed) < b.until {
		s.servers[1].values = b.shows
	}
	return s, err
}

// What only a server that is behind still shows was removed on purpose: it does not come back,
// whatever the provider does with the rest.
func TestStaleServer(t *testing.T) {
	const ours, theirs, removed = "ours", "theirs", "removed on purpose"
	for _, c := range []struct {
		name     string
		until    time.Duration
		replaces bool
		remove   bool
		restored []string
		done     bool
	}{
		{name: "add, behind for ever", until: time.Hour},
		{name: "add, it catches up", until: time.Minute, done: true},
		{name: "add, it catches up at once", until: 0, done: true},
		{name: "add and lose, it catches up", until: time.Minute, replaces: true, restored: []string{theirs}, done: true},
		{name: "add and lose, behind for ever", until: time.Hour, replaces: true},
		{name: "remove, behind for ever", until: time.Hour, remove: true},
		{name: "remove, it catches up", until: time.Minute, remove: true, done: true},
		{name: "remove and lose, it catches up", until: time.Minute, replaces: true, remove: true, restored: []string{theirs}, done: true},
		{name: "remove and lose, it catches up late", until: 150 * time.Second, replaces: true, remove: true, restored: []string{theirs}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(time.Minute, theirs)
				b := &behind{world: w, shows: []string{theirs, removed}, until: c.until}
				want := []string{ours, theirs}
				if c.remove {
					w.set([]string{theirs, ours})
					b.shows = []string{theirs, removed, ours}
					want = []string{theirs}
				}
				w.replaces = c.replaces
				wr := newWriter(Options{Provider: careful{w, c.replaces}}, b.read)
				var restored []string
				var err error
				if c.remove {
					var done Removed
					done, err = wr.remove(t.Context(), testName, ours)
					restored = done.Restored
				} else {
					var done added
					done, err = wr.add(t.Context(), testName, ours)
					restored = done.restored
				}
				if (err == nil) != c.done || !slices.Equal(restored, c.restored) {
					t.Errorf("restored %q, error %v", restored, err)
				}
				var lost *lostError
				if errors.As(err, &lost) {
					t.Errorf("nothing is lost: %v", err)
				}
				if got := slices.Sorted(slices.Values(w.values)); !slices.Equal(got, want) {
					t.Errorf("there are %q, want %q", got, want)
				}
			})
		})
	}
}

// What is new, and has not reached all servers when we write, is kept as well.
func TestNewValueOnOneServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(time.Minute, "theirs", "new")
		w.replaces = true
		b := &behind{world: w, shows: []string{"theirs"}, until: time.Minute}
		done, err := newWriter(Options{Provider: w}, b.read).add(t.Context(), testName, "ours")
		if err != nil || !slices.Equal(done.restored, []string{"theirs", "new"}) || !slices.Equal(w.values, []string{"theirs", "new", "ours"}) {
			t.Errorf("%+v, %v, %q", done, err, w.values)
		}
	})
}

// A server is compared with itself: one that answers only after the change shows no more than
// that it lacks what all had, one that answers only before it shows nothing.
func TestVanished(t *testing.T) {
	all := func(server) bool { return true }
	before := published{servers: []server{{"ns1", []string{"a", "b"}}, {"ns2", []string{"a", "b", "stale"}}, {"ns3", []string{"a"}}}}
	for name, c := range map[string]struct {
		after []server
		want  []string
	}{
		"the same":          {before.servers, nil},
		"nobody answers":    {nil, nil},
		"one is silent":     {[]server{{"ns2", []string{"stale", "b", "a"}}}, nil},
		"one has lost":      {[]server{{"ns1", []string{"b"}}, {"ns3", []string{"a"}}}, []string{"a"}},
		"it lacked it then": {[]server{{"ns3", []string{"a"}}}, nil},
		"a new one":         {[]server{{"ns4", []string{"b"}}}, []string{"a"}},
	} {
		if got := before.vanished(published{servers: c.after}, []string{"a", "b"}, all); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// cutOff empties the name and is then interrupted.
type cutOff struct {
	*world
	cancel context.CancelFunc
}

func (c cutOff) AppendRecords(ctx context.Context, zone string, recs []libdns.Record) ([]libdns.Record, error) {
	if c.cancel != nil && c.writes == 0 {
		c.writes++
		c.set(nil)
		c.cancel()
		return nil, context.Cause(ctx)
	}
	return c.world.AppendRecords(ctx, zone, recs)
}

// A call that is cut off in the middle is looked at all the same.
func TestCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		w := newWorld(time.Minute, "theirs")
		read := func(ctx context.Context, name string) (published, error) {
			if ctx.Err() != nil {
				return published{}, ctx.Err()
			}
			return w.read(ctx, name)
		}
		done, err := newWriter(Options{Provider: cutOff{w, cancel}}, read).add(ctx, testName, "ours")
		if err != nil || !slices.Equal(done.restored, []string{"theirs"}) || !slices.Equal(w.values, []string{"theirs", "ours"}) {
			t.Errorf("%+v, %v, %q", done, err, w.values)
		}
	})
}

// What is lost and not put back, because nobody can know which server is behind, is named.
func TestDoubtIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zap.WarnLevel)
		w := newWorld(time.Minute, "theirs", "perhaps new")
		w.fails, w.empties = 1, true
		b := &behind{world: w, shows: []string{"theirs"}, until: time.Hour}
		wr := newWriter(Options{Provider: w}, b.read)
		wr.logger = zap.New(core)
		_, err := wr.add(t.Context(), testName, "ours")
		if err == nil || !slices.Equal(w.values, []string{"theirs", "ours"}) {
			t.Errorf("%v, %q", err, w.values)
		}
		named := logs.FilterMessageSnippet("only some of the name servers").All()
		if len(named) != 1 || fmt.Sprint(named[0].ContextMap()["values"]) != "[perhaps new]" {
			t.Errorf("logged: %+v", logs.All())
		}
	})
}

// hanging replaces at first, and answers no more.
type hanging struct{ *world }

func (h hanging) AppendRecords(ctx context.Context, zone string, recs []libdns.Record) ([]libdns.Record, error) {
	if h.writes == 0 {
		return h.world.AppendRecords(ctx, zone, recs)
	}
	<-ctx.Done()
	return nil, ctx.Err()
}

// Putting back outlives its caller, but not for ever.
func TestRestoreEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(time.Minute, "theirs")
		w.replaces = true
		began := time.Now()
		_, err := newWriter(Options{Provider: hanging{w}, Timeout: time.Minute}, w.read).add(t.Context(), testName, "ours")
		var lost *lostError
		if !errors.As(err, &lost) || !slices.Equal(lost.Values, []string{"theirs"}) || time.Since(began) > DefaultWait+3*time.Minute {
			t.Errorf("after %s: %v", time.Since(began), err)
		}
	})
}
