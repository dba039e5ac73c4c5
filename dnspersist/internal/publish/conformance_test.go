package publish

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libdns/libdns"
)

// quirky is a provider with one fault, in front of a world.
type quirky struct {
	*world
	add func(w *world, rec libdns.TXT) (libdns.TXT, error)
	// after is called when it is written.
	after func(w *world) error
}

func (q quirky) AppendRecords(ctx context.Context, zone string, recs []libdns.Record) ([]libdns.Record, error) {
	var changed []libdns.Record
	for _, r := range recs {
		txt := r.(libdns.TXT)
		if q.add != nil {
			var err error
			if txt, err = q.add(q.world, txt); err != nil {
				return nil, err
			}
		}
		changed = append(changed, txt)
	}
	done, err := q.world.AppendRecords(ctx, zone, changed)
	if err == nil && q.after != nil {
		err = q.after(q.world)
	}
	return done, err
}

// GetRecords is never needed: some providers list one page, some want a zone transfer.
func (quirky) GetRecords(context.Context, string) ([]libdns.Record, error) {
	panic("GetRecords was called")
}

// Whatever a provider does wrong, others keep their values and TTL, and the error names the fault.
func TestConformance(t *testing.T) {
	const ours, theirs, more = `ca.example; accounturi=https://ca.example/Acct/1; policy=wildcard`, `Other.example; "theirs"`, "v=spf1 -all"
	text := func(fn func(string) string) func(*world, libdns.TXT) (libdns.TXT, error) {
		return func(_ *world, txt libdns.TXT) (libdns.TXT, error) {
			txt.Text = fn(txt.Text)
			return txt, nil
		}
	}
	for name, c := range map[string]struct {
		quirk  quirky
		lag    time.Duration
		writes int
		fails  string // part of the error
		shown  string // our value after it; ours if empty, - for none
	}{
		"append-only":    {writes: 1},
		"reads that lag": {lag: 9 * time.Second, writes: 1},
		"quoting": {
			quirk: quirky{add: text(func(s string) string { return `"` + s + `"` })}, writes: 1,
			fails: "the provider changes what it is given", shown: `"` + ours + `"`,
		},
		"escaping semicolons": {
			quirk: quirky{add: text(func(s string) string { return strings.ReplaceAll(s, ";", `\;`) })}, writes: 1,
			fails: "the provider changes what it is given", shown: strings.ReplaceAll(ours, ";", `\;`),
		},
		"lower-casing": {
			quirk: quirky{add: text(strings.ToLower)}, writes: 1,
			fails: "the provider changes what it is given", shown: strings.ToLower(ours),
		},
		"time-out after the write": {
			quirk: quirky{after: func(*world) error { return context.DeadlineExceeded }}, writes: 1,
		},
		"500 after the write": {quirk: quirky{after: func(*world) error { return errProvider }}, writes: 1},
		"deleting all, and failing to create": {
			quirk: quirky{add: func(w *world, txt libdns.TXT) (libdns.TXT, error) {
				if w.writes > 0 {
					return txt, nil
				}
				w.writes++
				w.set(nil)
				return txt, errProvider
			}}, lag: 5 * time.Second, writes: 2,
		},
		"429": {
			quirk: quirky{add: func(*world, libdns.TXT) (libdns.TXT, error) {
				return libdns.TXT{}, errors.New("HTTP 429: slow down, s3cret")
			}}, fails: "HTTP 429: slow down, [redacted]", shown: "-",
		},
		"wrong zone": {
			quirk: quirky{add: func(*world, libdns.TXT) (libdns.TXT, error) {
				return libdns.TXT{}, fmt.Errorf("no zone %s in this account", testZone)
			}}, fails: "adding to the zone example.com: no zone example.com in this account", shown: "-",
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(5*time.Minute, theirs, more)
				w.lag = c.lag
				c.quirk.world = w
				wr := w.writer()
				wr.Provider = c.quirk
				done, err := wr.add(t.Context(), testName, ours)
				if (err == nil) != (c.fails == "") || err != nil && !strings.Contains(err.Error(), c.fails) {
					t.Errorf("error %v, want %q", err, c.fails)
				}
				if err != nil && strings.Contains(err.Error(), "s3cret") {
					t.Errorf("a secret is shown: %v", err)
				}
				if (len(done.values) == 1) != (c.fails == "") {
					t.Errorf("done: %+v", done)
				}
				want := []string{theirs, more, ours}
				switch c.shown {
				case "":
				case "-":
					want = want[:2]
				default:
					want[2] = c.shown
				}
				if !slices.Equal(w.values, want) {
					t.Errorf("there are %q, want %q", w.values, want)
				}
				if w.ttl != 5*time.Minute {
					t.Errorf("the TTL became %s", w.ttl)
				}
				if w.writes != c.writes {
					t.Errorf("%d writes, want %d", w.writes, c.writes)
				}
			})
		})
	}
}

// A provider that keeps TTLs at its own least is not a failure, and one that refuses what is published
// already is asked once only.
func TestConformanceTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(0)
		w.refuses = true
		wr := w.writer()
		wr.TTL = time.Second
		wr.Provider = quirky{world: w, add: func(_ *world, txt libdns.TXT) (libdns.TXT, error) {
			txt.TTL = max(txt.TTL, time.Minute)
			return txt, nil
		}}
		for range 2 {
			if _, err := wr.add(t.Context(), testName, "ours"); err != nil {
				t.Fatal(err)
			}
		}
		if w.writes != 1 || w.ttl != time.Minute || !slices.Equal(w.values, []string{"ours"}) {
			t.Errorf("%d writes, TTL %s, %q", w.writes, w.ttl, w.values)
		}
	})
}

// One that replaces and changes what it is given cannot put anything back: what it has taken
// is named.
func TestAlteredAndLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(time.Minute, "Theirs")
		w.replaces = true
		wr := w.writer()
		wr.Provider = quirky{world: w, add: func(_ *world, txt libdns.TXT) (libdns.TXT, error) {
			txt.Text = strings.ToLower(txt.Text)
			return txt, nil
		}}
		_, err := wr.add(t.Context(), testName, "Ours")
		var lost *lostError
		if !errors.As(err, &lost) || !slices.Equal(lost.Values, []string{"Theirs"}) || !strings.Contains(err.Error(), "changes what it is given") {
			t.Errorf("error %v", err)
		}
		if w.writes != 1 {
			t.Errorf("%d writes", w.writes)
		}
	})
}
