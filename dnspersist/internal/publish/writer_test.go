package publish

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libdns/libdns"
	"go.uber.org/zap"
)

const (
	testZone = "example.com"
	testName = "_validation-persist.www.example.com"
)

var errProvider = errors.New("HTTP 500: the token s3cret is fine, the server is not")

// world is a zone with one name, its provider and two name servers, of which one lags.
type world struct {
	values  []string // at the provider
	ttl     time.Duration
	history []version
	lag     time.Duration // of the second server

	// what is wrong with the provider
	replaces bool // adding replaces the RRset
	fails    int  // that many writes fail
	wrote    bool // failing ones go through all the same
	empties  bool // those that do not empty the name
	refuses  bool // a value that is there already is an error
	writes   int
	unread   bool // the servers do not answer
}

type version struct {
	at     time.Time
	values []string
}

func newWorld(ttl time.Duration, values ...string) *world {
	w := &world{ttl: ttl}
	w.set(values)
	w.history[0].at = time.Time{}
	return w
}

func (w *world) set(values []string) {
	w.values = values
	w.history = append(w.history, version{time.Now(), slices.Clone(values)})
}

// AppendRecords implements libdns.RecordAppender.
func (w *world) AppendRecords(_ context.Context, zone string, recs []libdns.Record) ([]libdns.Record, error) {
	w.writes++
	if zone != testZone+"." {
		return nil, fmt.Errorf("no zone %s", zone)
	}
	fails := w.fails > 0
	if fails {
		w.fails--
		if !w.wrote {
			if w.empties {
				w.set(nil)
			}
			return nil, errProvider
		}
	}
	next := slices.Clone(w.values)
	if w.replaces {
		next = nil
	}
	for _, r := range recs {
		txt := r.(libdns.TXT)
		if txt.Name != "_validation-persist.www" {
			return nil, fmt.Errorf("no name %s", txt.Name)
		}
		if slices.Contains(next, txt.Text) {
			if w.refuses {
				return nil, errors.New("HTTP 409: it exists")
			}
			continue
		}
		next, w.ttl = append(next, txt.Text), txt.TTL
	}
	w.set(next)
	if fails {
		return nil, errProvider
	}
	return recs, nil
}

// read is the reader: the second server shows what was there a while ago.
func (w *world) read(context.Context, string) (published, error) {
	if w.unread {
		return published{}, errors.New("no answer")
	}
	behind := w.history[0].values
	for _, c := range w.history {
		if time.Since(c.at) >= w.lag {
			behind = c.values
		}
	}
	s := published{zone: testZone, servers: []server{{"ns1", w.values}, {"ns2", behind}}}
	if len(w.values) > 0 {
		s.ttl = w.ttl
	}
	return s, nil
}

func (w *world) writer() *writer {
	return newWriter(Options{Provider: w, Secrets: []string{"s3cret"}}, w.read)
}

func newWriter(o Options, read reader) *writer {
	return &writer{
		Options: &o, read: read, logger: zap.NewNop(),
		note:   func(context.Context, []string) error { return nil },
		inZone: func(ctx context.Context, _ string, call providerCall) error { return call.run(ctx) },
	}
}

func TestAdd(t *testing.T) {
	const ours, theirs = "ca.example; accounturi=https://ca.example/1", `other.example; "theirs"`
	for _, c := range []struct {
		name   string
		world  func() *world
		writes int
		fails  string // part of the error
		has    []string
	}{
		{"nothing is published", func() *world { return newWorld(0) }, 1, "", []string{ours}},
		{"it is published", func() *world { return newWorld(time.Minute, theirs, ours) }, 0, "", []string{theirs, ours}},
		{"beside others", func() *world { return newWorld(time.Minute, theirs) }, 1, "", []string{theirs, ours}},
		{"slow servers", func() *world { w := newWorld(time.Minute, theirs); w.lag = 20 * time.Second; return w }, 1, "", []string{theirs, ours}},
		{"replacing", func() *world { w := newWorld(time.Minute, theirs, "more"); w.replaces = true; return w }, 2, "", []string{theirs, "more", ours}},
		{"replacing, slow servers", func() *world {
			w := newWorld(time.Minute, theirs, "more")
			w.replaces, w.lag = true, 20*time.Second
			return w
		}, 2, "", []string{theirs, "more", ours}},
		{"another change on its way", func() *world {
			w := newWorld(time.Minute)
			w.lag, w.replaces = 30*time.Second, true
			w.set([]string{theirs})
			return w
		}, 2, "", []string{theirs, ours}},
		{"a removal on its way", func() *world {
			w := newWorld(time.Minute, theirs, "gone")
			w.lag = 30 * time.Second
			w.set([]string{theirs})
			return w
		}, 1, "", []string{theirs, ours}},
		{"500", func() *world { w := newWorld(time.Minute, theirs); w.fails = 1; return w }, 1, "adding to the zone example.com: HTTP 500: the token [redacted]", []string{theirs}},
		{"500 after the write", func() *world { w := newWorld(time.Minute, theirs); w.fails, w.wrote = 1, true; return w }, 1, "", []string{theirs, ours}},
		{"500 after the write, slow and replacing", func() *world {
			w := newWorld(time.Minute, theirs)
			w.fails, w.wrote, w.replaces, w.lag = 1, true, true, 3*time.Second
			return w
		}, 2, "", []string{theirs, ours}},
		{"silent servers", func() *world { w := newWorld(time.Minute, theirs); w.unread = true; return w }, 0, "so nothing was written", []string{theirs}},
		{"servers that never follow", func() *world { w := newWorld(time.Minute, theirs); w.lag = time.Hour; return w }, 1, "it may still come", []string{theirs, ours}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := c.world()
				_, err := w.writer().add(t.Context(), testName, ours)
				if (err == nil) != (c.fails == "") || err != nil && !strings.Contains(err.Error(), c.fails) {
					t.Errorf("error %v, want %q", err, c.fails)
				}
				if err != nil && strings.Contains(err.Error(), "s3cret") {
					t.Errorf("a secret is shown: %v", err)
				}
				got := slices.Sorted(slices.Values(w.values))
				if want := slices.Sorted(slices.Values(c.has)); !slices.Equal(got, want) {
					t.Errorf("there are %q, want %q", got, want)
				}
				if w.writes != c.writes {
					t.Errorf("%d writes, want %d", w.writes, c.writes)
				}
				if len(c.has) > 1 && w.ttl != time.Minute {
					t.Errorf("the TTL of the others became %s", w.ttl)
				}
			})
		})
	}
}

// What cannot be put back is named.
func TestLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(time.Minute, "theirs")
		w.replaces = true
		wr := w.writer()
		wr.Provider = failing{w, 2}
		_, err := wr.add(t.Context(), testName, "ours")
		var lost *lostError
		if !errors.As(err, &lost) || !slices.Equal(lost.Values, []string{"theirs"}) || !strings.Contains(err.Error(), "add these TXT values again: theirs") {
			t.Errorf("error %v", err)
		}
	})
}

// failing fails from the nth write on.
type failing struct {
	*world
	n int
}

func (f failing) AppendRecords(ctx context.Context, zone string, recs []libdns.Record) ([]libdns.Record, error) {
	if f.writes+1 >= f.n {
		f.writes++
		return nil, errProvider
	}
	return f.world.AppendRecords(ctx, zone, recs)
}

// In whatever order things go wrong, a value that was there before stays, with its TTL.
func TestSequences(t *testing.T) {
	for seed := range uint64(10_000) {
		synctest.Test(t, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 1))
			w := newWorld(time.Minute)
			kept := map[string]bool{}
			w.replaces, w.refuses = rnd.IntN(2) == 0, rnd.IntN(2) == 0
			w.lag = time.Duration(rnd.IntN(30)) * time.Second
			w.empties = seed%3 == 0
			for step := range 6 {
				switch rnd.IntN(4) {
				case 0: // somebody else adds
					v := fmt.Sprintf("foreign %d", step)
					kept[v] = true
					w.set(append(slices.Clone(w.values), v))
				case 1:
					w.fails, w.wrote = 1, rnd.IntN(2) == 0
				default:
					ttl, had := w.ttl, len(w.values) > 0
					v := fmt.Sprintf("ours %d", rnd.IntN(3))
					_, err := w.writer().add(t.Context(), testName, v)
					var lost *lostError
					if errors.As(err, &lost) {
						t.Fatalf("seed %d: %v", seed, err)
					}
					if err == nil && !slices.Contains(w.values, v) {
						t.Errorf("seed %d: %q is not published: %q", seed, v, w.values)
					}
					if had && w.ttl != ttl {
						t.Errorf("seed %d: the TTL was %s, is %s", seed, ttl, w.ttl)
					}
				}
			}
			seen := make(map[string]int)
			for _, v := range w.values {
				seen[v]++
			}
			for v := range kept {
				if seen[v] != 1 {
					t.Errorf("seed %d: %q is there %d times: %q", seed, v, seen[v], w.values)
				}
			}
		})
		if t.Failed() {
			return
		}
	}
}

// SetRecords replaces whole RRsets, and with them other people's values.
func TestNobodySets(t *testing.T) {
	err := filepath.WalkDir("../..", func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
			return err
		}
		source, err := os.ReadFile(path)
		if strings.Contains(string(source), ".SetRecords(") {
			t.Errorf("%s calls SetRecords", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
