package dnspersist

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"
	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/events"
	"github.com/dnspersist/caddy-dnspersist/internal/tuning"
)

// Who subscribes to a name that is not an event, or to a pattern, is warned.
func TestUnknownEvents(t *testing.T) {
	got := unknownEvents([]*caddyevents.Subscription{
		{Events: []string{"dns_persist_*", events.RecordGone, "cert_failed"}}, {Events: []string{""}}, {Events: []string{"dns_persist_record_missing"}}, {},
	})
	if want := []string{"dns_persist_*", "dns_persist_record_missing"}; !slices.Equal(got, want) {
		t.Errorf("unknown are %q, want %q", got, want)
	}
}

// A configuration that has ended before Caddy reports that it has started leaves the events to the newer one,
// whether anybody has wanted events in it or not.
func TestStartedAfterItsEnd(t *testing.T) {
	ctx, cancel := caddy.NewContext(caddy.Context{Context: t.Context()})
	defer cancel()
	for _, hasHandler := range []bool{true, false} {
		emitter := new(caddyevents.App)
		if err := emitter.Provision(ctx); err != nil {
			t.Fatal(err)
		}
		a := &App{mu: new(sync.Mutex), stopped: true, logger: zap.NewNop(), shared: newShared(tuning.Get()), ctx: ctx}
		ended := startEvents{a, emitter}
		if hasHandler {
			if err := emitter.On(events.CAChanged, ended); err != nil {
				t.Fatal(err)
			}
		}
		emitted := make(chan string, 1)
		stop := a.shared.events.Start(func(name string, _ map[string]any) { emitted <- name }, time.Millisecond)
		if err := ended.Handle(context.Background(), caddy.Event{}); err != nil {
			t.Error(err)
		}
		a.shared.events.Notice(acmepersist.Notice{Kind: acmepersist.NoticeCAChanged})
		select {
		case <-emitted:
		case <-time.After(10 * time.Second):
			t.Errorf("the newer configuration emits nothing (with a handler in the one that has ended: %t)", hasHandler)
		}
		stop()
		if err := a.shared.Destruct(); err != nil {
			t.Error(err)
		}
	}
}
