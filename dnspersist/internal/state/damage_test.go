package state

import "testing"

// What is precious is never taken for a cache, nor is a file that nobody has thought of.
func TestIsCache(t *testing.T) {
	t.Parallel()
	s := Store{Folder: "dns_persist/ca"}
	for rel, want := range map[string]bool{
		"account.json": false, "account_x.json": false, "lost/x.json": false, "published/x.json": false,
		"something.json": false, "names": false, "names/x": false, "names/a/b.json": false, "damaged/names/x.json": false,
		"ca.json": true, "orders/x.json": true, "names/x.json": true, "targets/x.json": true, "poller.json": true,
	} {
		if got := s.isCache(s.Key(rel)); got != want {
			t.Errorf("%s is a cache: %v, want %v", rel, got, want)
		}
	}
}
