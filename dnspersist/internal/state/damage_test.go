package state

import (
	"strings"
	"testing"

	"github.com/caddyserver/certmagic"
)

// What is precious is never taken for a cache, nor is a file that nobody has thought of.
func TestKinds(t *testing.T) {
	t.Parallel()
	s := Store{Storage: &certmagic.FileStorage{Path: t.TempDir()}, Folder: "dns_persist/ca"}
	if err := s.Save(t.Context(), s.Key("something.json"), 1); err == nil {
		t.Error("a file of no kind was written")
	}
	for rel, want := range map[string]bool{
		"account.json": false, "account_x.json": false, "lost/x.json": false, "published/x.json": false,
		"something.json": false, "names": false, "names/x": false, "names/a/b.json": false, "damaged/names/x.json": false,
		"ca.json": true, "orders/x.json": true, "names/x.json": true, "targets/x.json": true, "limits/x.json": true, "poller.json": true,
	} {
		if got, _ := s.kind(s.Key(rel)); got != want {
			t.Errorf("%s is a cache: %v, want %v", rel, got, want)
		}
	}
}

// A file that another release has written is to be read by that one before a backup is looked for.
func TestForeignVersionSaysWhatToDo(t *testing.T) {
	t.Parallel()
	s := Store{Storage: &certmagic.FileStorage{Path: t.TempDir()}, Folder: "dns_persist/ca"}
	key := s.Key("account.json")
	if err := s.Storage.Store(t.Context(), key, []byte(`{"version":7}`)); err != nil {
		t.Fatal(err)
	}
	var into struct{}
	_, err := s.Load(t.Context(), key, &into)
	if err == nil || !strings.Contains(err.Error(), "it is of version 7, which this release does not know; use the release that has written it, or restore it from a backup") {
		t.Errorf("it says: %v", err)
	}
}
