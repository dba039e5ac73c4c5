package acmepersist

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/libdns/libdns"
)

// silent is a provider whose API accepts and never answers.
type silent struct{ *emptying }

func (silent) AppendRecords(ctx context.Context, _ string, _ []libdns.Record) ([]libdns.Record, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func (silent) DeleteRecords(ctx context.Context, _ string, _ []libdns.Record) ([]libdns.Record, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// A provider that never answers does not hold the zone for ever.
func TestSilentProvider(t *testing.T) {
	u := newUnfinished(t, "theirs", "old")
	u.w.Provider, u.w.Timeout = silent{u.emptying}, 50*time.Millisecond
	const want = "the provider did not answer within 50ms"
	began := time.Now()
	if err := u.put(); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("adding: %v", err)
	}
	if _, err := u.w.remove(t.Context(), "old", nil); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("removing: %v", err)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %s", took)
	}
	// what waits for the zone does not wait on the provider's time
	begun, end := make(chan struct{}), make(chan struct{})
	go func() {
		_ = u.w.inZone(t.Context(), "example.test.", func(context.Context) error { close(begun); <-end; return nil })
	}()
	<-begun
	time.AfterFunc(3*u.w.Timeout, func() { close(end) })
	if err := u.w.inZone(t.Context(), "example.test.", func(ctx context.Context) error { return ctx.Err() }); err != nil {
		t.Errorf("after a wait: %v", err)
	}
	u.w.Provider = u.emptying
	if err := u.put(); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	u.is("old", "ours", "theirs")
}
