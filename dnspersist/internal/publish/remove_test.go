package publish

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/libdns/libdns"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
)

// careful deletes what it is given, all of the name if empties is set.
type careful struct {
	*world
	empties bool
}

// DeleteRecords implements libdns.RecordDeleter.
func (c careful) DeleteRecords(_ context.Context, _ string, recs []libdns.Record) ([]libdns.Record, error) {
	c.writes++
	next := slices.Clone(c.values)
	for _, r := range recs {
		txt := r.(libdns.TXT)
		if txt.Name == "" || txt.Text == "" || txt.TTL != 0 {
			return nil, errors.New("that would delete something else")
		}
		next = slices.DeleteFunc(next, func(v string) bool { return v == txt.Text || c.empties })
	}
	c.set(next)
	return recs, nil
}

func TestRemove(t *testing.T) {
	const ours, theirs = "ours", "theirs"
	for _, c := range []struct {
		name     string
		values   []string
		lag      time.Duration
		empties  bool
		replaces bool
		has      []string
		writes   int
	}{
		{"alone", []string{ours}, 0, false, false, nil, 1},
		{"not there", []string{theirs}, 0, false, false, []string{theirs}, 0},
		{"beside others", []string{theirs, ours, "more"}, 20 * time.Second, false, false, []string{"more", theirs}, 1},
		{"all are deleted", []string{theirs, ours, "more"}, 20 * time.Second, true, false, []string{"more", theirs}, 2},
		{"all are deleted, and replaced", []string{theirs, ours, "more"}, 0, true, true, []string{"more", theirs}, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(time.Minute, c.values...)
				w.lag, w.replaces = c.lag, c.replaces
				wr := w.writer()
				wr.Provider = careful{w, c.empties}
				done, err := wr.remove(t.Context(), testName, ours)
				if err != nil || done.Gone != slices.Contains(c.values, ours) {
					t.Errorf("%+v, %v", done, err)
				}
				if got := slices.Sorted(slices.Values(w.values)); !slices.Equal(got, c.has) {
					t.Errorf("there are %q, want %q", got, c.has)
				}
				if w.writes != c.writes || w.ttl != time.Minute {
					t.Errorf("%d writes, want %d; TTL %s", w.writes, c.writes, w.ttl)
				}
			})
		})
	}
}

func TestRemoveRefuses(t *testing.T) {
	w := newWorld(time.Minute, "ours")
	if _, err := w.writer().remove(t.Context(), testName, "ours"); !errors.Is(err, errNoRemoval) {
		t.Errorf("a provider that only adds: %v", err)
	}
	wr := w.writer()
	wr.Provider = careful{w, false}
	if _, err := wr.remove(t.Context(), testName, ""); err == nil || w.writes != 0 {
		t.Errorf("an empty value: %v", err)
	}
	w.unread = true
	if _, err := wr.remove(t.Context(), testName, "ours"); err == nil || !strings.Contains(err.Error(), "nothing was removed") || w.writes != 0 {
		t.Errorf("silent servers: %v", err)
	}
}

func TestInventory(t *testing.T) {
	i := &Inventory{Store: state.Store{Storage: &certmagic.FileStorage{Path: t.TempDir()}, Folder: "dns_persist/ca"}}
	at := time.Now().UTC().Truncate(time.Second)
	one := Entry{Name: testName, Zone: testZone, Value: "one", CA: "https://ca.test", Account: "https://ca.test/1", At: at}
	two := one
	two.Value = "two"
	ctx := t.Context()
	if all, err := i.All(ctx); err != nil || len(all) != 0 {
		t.Errorf("%v, %v", all, err)
	}
	for _, e := range []Entry{one, two, one} {
		if err := i.Note(ctx, e); err != nil {
			t.Fatal(err)
		}
	}
	one.WrittenAt = at
	if err := i.Note(ctx, one); err != nil {
		t.Fatal(err)
	}
	if all, err := i.All(ctx); err != nil || !reflect.DeepEqual(all, []Entry{two, one}) {
		t.Errorf("%+v, %v", all, err)
	}
	for range 2 {
		if err := errors.Join(i.forget(ctx, testName, "one"), i.forget(ctx, "_validation-persist.other.example", "x")); err != nil {
			t.Fatal(err)
		}
	}
	if all, err := i.At(ctx, testName); err != nil || !reflect.DeepEqual(all, []Entry{two}) {
		t.Errorf("%+v, %v", all, err)
	}
	if err := i.forget(ctx, testName, "two"); err != nil {
		t.Fatal(err)
	}
	if all, err := i.All(ctx); err != nil || len(all) != 0 {
		t.Errorf("%v, %v", all, err)
	}
	for _, name := range []string{"", "../account", "a/b", "A.example", "a..b"} {
		if err := i.Note(ctx, Entry{Name: name, Value: "x"}); err == nil {
			t.Errorf("noted at %q", name)
		}
	}
	if err := i.Store.Storage.Store(ctx, i.Store.Key("published", testName+".json"), []byte("{")); err != nil {
		t.Fatal(err)
	}
	if _, err := i.At(ctx, testName); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("a damaged file: %v", err)
	}
}
