package publish

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
	"github.com/dnspersist/caddy-dnspersist/internal/memorystorage"
)

func testInventory(t *testing.T, logger *zap.Logger) *Inventory {
	t.Helper()
	return &Inventory{Store: state.Store{Storage: &certmagic.FileStorage{Path: t.TempDir()}, Folder: "dns_persist/ca", Logger: logger}}
}

// A file that cannot be read keeps what it lists from being removed. Writing goes on, and so do the
// other names.
func TestDamagedInventory(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	entry := func(name, value string) Entry {
		return Entry{Name: name, Zone: testZone, Value: value, CA: "https://ca.test", Account: "https://ca.test/1", At: at}
	}
	whole, err := json.Marshal([]Entry{entry(testName, "old")})
	if err != nil {
		t.Fatal(err)
	}
	for what, data := range map[string]string{
		"empty": "", "zeros": strings.Repeat("\x00", len(whole)), "halved": string(whole[:len(whole)/2]), "null": "null",
		"object": "{}", "list of nothing": "[{}]", "wrong types": `[{"name":1}]`, "foreign version": `{"version":7}`,
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			core, logs := observer.New(zap.WarnLevel)
			i := testInventory(t, zap.New(core))
			key := i.Store.Key("published", testName+".json")
			if err := errors.Join(i.Note(ctx, entry("_validation-persist.other.example", "other")), i.Store.Storage.Store(ctx, key, []byte(data))); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if _, err := i.At(ctx, testName); err == nil || !strings.Contains(err.Error(), key) || !strings.Contains(err.Error(), "nothing is removed") {
					t.Errorf("for a removal: %v", err)
				}
				if err := i.forget(ctx, testName, "old"); err == nil {
					t.Error("something was forgotten")
				}
				if all, err := i.known(ctx, testName); err != nil || len(all) != 0 {
					t.Errorf("for a write: %v, %v", all, err)
				}
				if all, err := i.All(ctx); !errors.As(err, new(*state.DamagedError)) || len(all) != 1 || all[0].Value != "other" {
					t.Errorf("all: %v, %v", all, err)
				}
			}
			if err := i.Note(ctx, entry(testName, "new")); err != nil {
				t.Fatalf("writing: %v", err)
			}
			if all, err := i.At(ctx, testName); err != nil || len(all) != 1 || all[0].Value != "new" {
				t.Errorf("after the write: %v, %v", all, err)
			}
			if aside, err := i.Store.Storage.Load(ctx, i.Store.Key("damaged", "published", testName+".json")); err != nil || string(aside) != data {
				t.Errorf("set aside is %q, %v", aside, err)
			}
			if logs.Len() != 1 {
				t.Errorf("the log is %v", logs.All())
			}
		})
	}
}

// Files without ".json" are nobody's.
func TestStrayInventoryFile(t *testing.T) {
	t.Parallel()
	i := testInventory(t, zap.NewNop())
	if err := i.Store.Storage.Store(t.Context(), i.Store.Key("published", "1234567890"), []byte("[{")); err != nil {
		t.Fatal(err)
	}
	if all, err := i.All(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("%v, %v", all, err)
	}
}

// Whatever the file of a name holds, an entry can be noted, is there then, and can be forgotten.
func FuzzInventory(f *testing.F) {
	f.Add([]byte(`[{"name":"_validation-persist.www.example.com","zone":"example.com","value":"v","at":"2026-01-02T03:04:05Z"}]`))
	f.Add([]byte(`[]`))
	f.Add([]byte(`null`))
	i := &Inventory{Store: state.Store{Storage: memorystorage.New(), Folder: "dns_persist/ca", Logger: zap.NewNop()}}
	key := i.Store.Key("published", testName+".json")
	f.Fuzz(func(t *testing.T, data []byte) {
		ctx := t.Context()
		if err := i.Store.Storage.Store(ctx, key, data); err != nil {
			t.Fatal(err)
		}
		before, err := i.At(ctx, testName)
		if known, knownErr := i.known(ctx, testName); knownErr != nil || err == nil && len(known) != len(before) {
			t.Fatalf("%v, %v", known, knownErr)
		}
		e := Entry{Name: testName, Value: "\x00noted", At: time.Unix(1, 0).UTC()}
		if err := i.Note(ctx, e); err != nil {
			t.Fatal(err)
		}
		all, err := i.At(ctx, testName)
		if err != nil || len(all) == 0 || all[len(all)-1].Value != e.Value {
			t.Fatalf("%v, %v", all, err)
		}
		if err := i.forget(ctx, testName, e.Value); err != nil {
			t.Fatal(err)
		}
		if left, err := i.Store.Storage.Load(ctx, key); err == nil && bytes.Contains(left, []byte(`\u0000noted`)) {
			t.Fatalf("it is still there: %s", left)
		}
	})
}
