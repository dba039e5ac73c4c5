package acmepersist_test

import (
	"context"
	"errors"
	"path"
	"testing"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/dnspersist/caddy-dnspersist/internal/lab"
)

// unlisted is a storage that cannot list the names.
type unlisted struct {
	certmagic.Storage
	fails bool
}

func (u *unlisted) List(ctx context.Context, prefix string, recursive bool) ([]string, error) {
	if u.fails && path.Base(prefix) == "names" {
		return nil, errors.New("it is down")
	}
	return u.Storage.List(ctx, prefix, recursive)
}

// An announcement that fails is made with the next comparison, and once.
func TestAnnouncementIsMadeUp(t *testing.T) {
	i := newIssuing(t)
	core, logs := observer.New(zap.WarnLevel)
	i.with(zap.New(core), nil)
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
	listing := &unlisted{Storage: i.Storage, fails: true}
	i.with(nil, listing)
	read(true, 0)
	read(true, 0)
	listing.fails = false
	read(false, 1)
	read(false, 1)
}
