package ca

import (
	"context"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
)

type leasing struct {
	certmagic.Storage
	keys []string
}

func (l *leasing) RenewLockLease(_ context.Context, key string, _ time.Duration) error {
	l.keys = append(l.keys, key)
	return nil
}

func TestLockLeaseIsExtendedWhileWaiting(t *testing.T) {
	storage := &leasing{}
	c := New(Config{Store: state.Store{Storage: storage}, Logger: zap.NewNop()}).At(&Directory{})
	c.KeepLock(t.Context(), "example.com")
	if len(storage.keys) != 0 {
		t.Fatal("the lease was extended right after it was taken")
	}
	c.leased = time.Now().Add(-leaseEvery)
	c.KeepLock(t.Context(), "example.com")
	c.KeepLock(t.Context(), "example.com")
	if len(storage.keys) != 1 || storage.keys[0] != "issue_cert_example.com" {
		t.Errorf("extended %v, want issue_cert_example.com once", storage.keys)
	}
	// a storage without leases needs nothing
	New(Config{Store: state.Store{Storage: &certmagic.FileStorage{}}}).At(&Directory{}).KeepLock(t.Context(), "example.com")
}
