package publish

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
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
	u := newPlace(t, "theirs", "old")
	u.keeper.Options.Provider, u.keeper.Options.Timeout = silent{u.emptying}, 50*time.Millisecond
	const want = "the provider did not answer within 50ms"
	began := time.Now()
	if err := u.put(); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("adding: %v", err)
	}
	if _, err := u.keeper.Remove(t.Context(), u.at, "old", nil); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("removing: %v", err)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %s", took)
	}
	// what waits for the zone does not wait on the provider's time
	begun, end := make(chan struct{}), make(chan struct{})
	go func() {
		_ = u.keeper.change(u.at).inZone(t.Context(), "example.test", adding(func(context.Context) error { close(begun); <-end; return nil }))
	}()
	<-begun
	time.AfterFunc(3*u.keeper.Options.Timeout, func() { close(end) })
	if err := u.keeper.change(u.at).inZone(t.Context(), "example.test", adding(func(ctx context.Context) error { return ctx.Err() })); err != nil {
		t.Errorf("after a wait: %v", err)
	}
	u.keeper.Options.Provider = u.emptying
	if err := u.put(); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	u.is("old", "ours", "theirs")
}

// stuck is a provider whose calls end when they are let go, whatever their context says.
type stuck struct {
	*emptying
	calls atomic.Int32
	end   chan struct{}
}

func (s *stuck) AppendRecords(ctx context.Context, zone string, records []libdns.Record) ([]libdns.Record, error) {
	s.calls.Add(1)
	<-s.end
	return s.emptying.AppendRecords(ctx, zone, records)
}

// A call that ends neither in time nor when it is cancelled lets go of the zone: another node can write. It
// is not joined by a second one of this process.
func TestStuckProvider(t *testing.T) {
	t.Parallel()
	u := newPlace(t, "theirs", "old")
	hangs := &stuck{emptying: u.emptying, end: make(chan struct{})}
	u.keeper.Options.Provider, u.keeper.Options.Timeout = hangs, 50*time.Millisecond
	if err := u.put(); err == nil || !strings.Contains(err.Error(), "runs on although it was cancelled") {
		t.Errorf("adding: %v", err)
	}
	other := *u.keeper
	other.Options = &Options{Provider: u.emptying, Timeout: time.Minute}
	elsewhere := other.change(u.at)
	wrote := false
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := elsewhere.inZone(ctx, "example.test", adding(func(context.Context) error { wrote = true; return nil })); err != nil || !wrote {
		t.Errorf("another node: %v", err)
	}
	if err := u.put(); err == nil || !strings.Contains(err.Error(), "has not ended") {
		t.Errorf("adding again: %v", err)
	}
	if n := hangs.calls.Load(); n != 1 {
		t.Errorf("it was called %d times, want once", n)
	}
	close(hangs.end)
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		err := u.put()
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("after it has ended: %v", err)
		}
	}
}

// A provider's panic is an error of the call.
func TestPanickingProvider(t *testing.T) {
	t.Parallel()
	u := newPlace(t, "theirs", "old")
	err := u.keeper.change(u.at).inZone(t.Context(), "example.test", adding(func(context.Context) error { panic("nil map") }))
	if err == nil || !strings.Contains(err.Error(), "panicked: nil map") {
		t.Errorf("got %v", err)
	}
}

// adding is a call of a provider that adds something.
func adding(run func(context.Context) error) providerCall { return providerCall{OperationAdd, run} }

// Whoever counts learns of each call how it has ended, and of one that was given up that this is not known.
func TestCallsAreCounted(t *testing.T) {
	t.Parallel()
	u := newPlace(t)
	type call struct {
		Operation
		Outcome
	}
	var calls []call
	u.keeper.Process.Called = func(operation Operation, outcome Outcome) { calls = append(calls, call{operation, outcome}) }
	u.keeper.Options.Timeout = 50 * time.Millisecond
	cut, cancel := context.WithCancel(t.Context())
	for ctx, fn := range map[context.Context]func(context.Context) error{
		t.Context(): func(context.Context) error { return errors.New("no") },
		cut:         func(ctx context.Context) error { cancel(); <-ctx.Done(); return ctx.Err() },
	} {
		calls = nil
		_ = u.keeper.change(u.at).inZone(ctx, "example.test", adding(fn))
		want := OutcomeError
		if ctx == cut {
			want = OutcomeUnknown
		}
		if !slices.Equal(calls, []call{{OperationAdd, want}}) {
			t.Errorf("counted are %v", calls)
		}
	}
	calls = nil
	if err := u.put(); err != nil {
		t.Fatal(err)
	}
	if _, err := u.keeper.Remove(t.Context(), u.at, "ours", nil); err != nil {
		t.Fatal(err)
	}
	u.keeper.Options.Provider = silent{u.emptying}
	_ = u.put()
	if want := []call{{OperationAdd, OutcomeOK}, {OperationRemove, OutcomeOK}, {OperationAdd, OutcomeUnknown}}; !slices.Equal(calls, want) {
		t.Errorf("counted are %v, want %v", calls, want)
	}
}
