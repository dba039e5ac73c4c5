package account

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/ca"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
	"github.com/dnspersist/caddy-dnspersist/internal/memorystorage"
)

// fileKind is one kind of file in storage, with what a whole one holds.
type fileKind struct {
	key   string
	whole any
	cache bool
}

func fileKinds(tb testing.TB) []fileKind {
	tb.Helper()
	key, err := newKey()
	if err != nil {
		tb.Fatal(err)
	}
	bound, err := newBinding("https://ca.test/dir", originRegistered, key, nil)
	if err != nil {
		tb.Fatal(err)
	}
	bound.URL = "https://ca.test/1"
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	offered := true
	return []fileKind{
		{"account.json", &bound, false},
		{"account_" + bound.Thumbprint + ".json", &bound, false},
		{"lost/" + bound.Thumbprint + ".json", &bound, false},
		{"ca.json", &ca.Offer{CA: "https://ca.test/dir", Offered: &offered, SeenAt: at}, true},
		{"names/_validation-persist.a.test.json", &state.Name{Name: "_validation-persist.a.test", Attempts: []time.Time{at}}, true},
		{"orders/a.test.json", &state.Order{URL: "https://ca.test/o/1", Account: "https://ca.test/1", At: at}, true},
		{"targets/x.zone.test.json", &state.Target{Domains: []string{"a.test"}}, true},
	}
}

// Each kind of file in each state: a cache is lost, with one warning, and can be written anew; what is
// precious is an error that names the file, and stays.
func TestDamagedFiles(t *testing.T) {
	t.Parallel()
	for _, kind := range fileKinds(t) {
		whole, err := json.MarshalIndent(kind.whole, "", "\t")
		if err != nil {
			t.Fatal(err)
		}
		text := string(whole)
		cases := map[string]string{
			"empty": "", "spaces": " \n", "zeros": strings.Repeat("\x00", len(text)), "halved": text[:len(text)/2],
			"null": "null", "empty object": "{}", "list": "[]", "a string": `"x"`, "a number": "7",
			"wrong types":     `{"ca":1,"url":[],"name":{},"domains":"x","key":2}`,
			"foreign version": `{"version":7,` + strings.TrimPrefix(text, "{"),
		}
		for what, data := range cases {
			t.Run(kind.key+" "+what, func(t *testing.T) {
				core, logs := observer.New(zap.WarnLevel)
				st := state.New(&certmagic.FileStorage{Path: t.TempDir()}, "https://ca.test/dir")
				st.Logger = zap.New(core)
				key := st.Key(kind.key)
				if err := st.Storage.Store(t.Context(), key, []byte(data)); err != nil {
					t.Fatal(err)
				}
				for range 3 {
					v := reflect.New(reflect.TypeOf(kind.whole).Elem())
					found, lost, err := st.Recall(t.Context(), key, v.Interface())
					if found || lost != kind.cache || (err == nil) != kind.cache {
						t.Fatalf("found %v, lost %v, %v", found, lost, err)
					}
					if !v.Elem().IsZero() {
						t.Errorf("something of it was taken: %+v", v.Elem())
					}
					var damaged *state.DamagedError
					if !kind.cache && (!errors.As(err, &damaged) || !strings.Contains(err.Error(), key)) {
						t.Errorf("the error is %v", err)
					}
				}
				if kind.cache && logs.Len() != 1 || !kind.cache && logs.Len() != 0 {
					t.Errorf("the log is %v", logs.All())
				}
				if !kind.cache {
					return
				}
				if aside, err := st.Storage.Load(t.Context(), st.Key("damaged", kind.key)); err != nil || string(aside) != data {
					t.Errorf("set aside is %q, %v", aside, err)
				}
				if err := st.Save(t.Context(), key, kind.whole); err != nil {
					t.Fatal(err)
				}
				v := reflect.New(reflect.TypeOf(kind.whole).Elem())
				if found, err := st.Load(t.Context(), key, v.Interface()); err != nil || !found || !reflect.DeepEqual(v.Interface(), kind.whole) {
					t.Errorf("written anew it is %+v, %v", v, err)
				}
			})
		}
	}
}

// A storage that does not work has lost nothing.
func TestStorageDown(t *testing.T) {
	t.Parallel()
	core, logs := observer.New(zap.WarnLevel)
	for _, kind := range fileKinds(t) {
		st := state.New(downStorage{&certmagic.FileStorage{Path: t.TempDir()}}, "https://ca.test/dir")
		st.Logger = zap.New(core)
		v := reflect.New(reflect.TypeOf(kind.whole).Elem())
		if found, lost, err := st.Recall(t.Context(), st.Key(kind.key), v.Interface()); found || lost || !errors.Is(err, errDown) {
			t.Errorf("%s: found %v, lost %v, %v", kind.key, found, lost, err)
		}
	}
	if logs.Len() != 0 {
		t.Errorf("the log is %v", logs.All())
	}
}

var errDown = errors.New("connection refused")

type downStorage struct{ certmagic.Storage }

func (downStorage) Load(context.Context, string) ([]byte, error) {
	return nil, fmt.Errorf("asking the server: %w", errDown)
}

func (downStorage) Stat(context.Context, string) (certmagic.KeyInfo, error) {
	return certmagic.KeyInfo{}, errDown
}

// Whatever a file holds, reading it ends, and what it says can be worked with.
func FuzzStateFiles(f *testing.F) {
	kinds := fileKinds(f)
	for _, kind := range kinds {
		data, err := json.Marshal(kind.whole)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(`{"name":"x","attempts":["9999-01-01T00:00:00Z"],"not_before":"9999-01-01T00:00:00Z"}`))
	st := state.New(memorystorage.New(), "https://ca.test/dir")
	st.Logger = zap.NewNop()
	f.Fuzz(func(t *testing.T, data []byte) {
		now := time.Now()
		for _, kind := range kinds {
			key := st.Key(kind.key)
			if err := st.Storage.Store(t.Context(), key, data); err != nil {
				t.Fatal(err)
			}
			v := reflect.New(reflect.TypeOf(kind.whole).Elem()).Interface()
			found, err := st.Load(t.Context(), key, v)
			if err != nil && kind.cache {
				t.Fatalf("%s: %v", kind.key, err)
			}
			if !found {
				continue
			}
			switch v := v.(type) {
			case *state.Name:
				v.Repair(now)
				if at := v.NextAttempt(); at.After(now.Add(6*time.Hour + 2*state.Skew)) {
					t.Errorf("the next attempt is at %s", at)
				}
			case *binding:
				if _, err := v.acme(); err != nil {
					t.Errorf("an account without key was taken: %v", err)
				}
			}
		}
	})
}
