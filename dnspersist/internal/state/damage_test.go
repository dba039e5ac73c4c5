package state

import (
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
