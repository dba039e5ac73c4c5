package acmepersist_test

import (
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/dnspersist/caddy-dnspersist/internal/lab"
)

// An announcement that fails is made with the next comparison, and once.
func TestAnnouncementIsMadeUp(t *testing.T) {
	i := newIssuing(t)
	core, logs := observer.New(zap.WarnLevel)
	i.Logger = zap.New(core)
	read := func(fails bool, said int) {
		t.Helper()
		if err := i.ReadDirectory(t.Context()); (err != nil) != fails {
			t.Fatalf("reading the directory: %v", err)
		}
		if n := logs.FilterMessageSnippet("the CA has changed what records").Len(); n != said {
			t.Fatalf("a change was announced %d times, want %d", n, said)
		}
	}
	if err := i.issue(t.Context()); err != nil {
		t.Fatal(err)
	}
	read(false, 0)
	i.ca.SetDialect(lab.Dialect{Draft: "02"})
	bad := i.file("names", "bad.json")
	if err := os.MkdirAll(filepath.Dir(bad), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(bad, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	read(true, 0)
	read(true, 0)
	if err := os.Remove(bad); err != nil {
		t.Fatal(err)
	}
	read(false, 1)
	read(false, 1)
}
