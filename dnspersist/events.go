package dnspersist

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"
	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/events"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/metrics"
)

// subscribeToStart has this configuration emit events once it has started.
func (a *App) subscribeToStart(ctx caddy.Context) error {
	app, err := ctx.App("events")
	if err != nil {
		return fmt.Errorf("getting the events app: %w", err)
	}
	emitter := app.(*caddyevents.App)
	for _, name := range unknownEvents(emitter.Subscriptions) {
		a.logger.Warn("there is no event of this name, so its handlers are never called; patterns are not possible, and * alone means all events of Caddy",
			zap.String("event", name), zap.Strings("events", events.Names))
	}
	if err := emitter.On("started", startEvents{a, emitter}); err != nil { // an issuer of the admin endpoint alone is provisioned after all apps have started
		a.logger.Debug("no events are emitted", zap.Error(err))
	}
	return nil
}

// unknownEvents are those that are subscribed to, are called as ours are, and do not exist.
func unknownEvents(all []*caddyevents.Subscription) []string {
	var unknown []string
	for _, s := range all {
		for _, name := range s.Events {
			if strings.HasPrefix(name, "dns_persist") && !slices.Contains(events.Names, name) {
				unknown = append(unknown, name)
			}
		}
	}
	return unknown
}

// startEvents has the events be emitted by this configuration once all of its apps have started, which Caddy
// reports by an event: apps start in any order, and what is emitted before the events app has taken up
// the handlers is lost. A configuration that does not start leaves them to the one that goes on.
type startEvents struct {
	app  *App
	emit *caddyevents.App
}

// Handle implements caddyevents.Handler.
func (s startEvents) Handle(context.Context, caddy.Event) error {
	a := s.app
	if a.hasStopped() {
		return nil // it would silence the configuration that has come after it
	}
	if !slices.ContainsFunc(events.Names, s.emit.ShouldEmit) {
		a.shared.events.Rest()
		return nil
	}
	stop := a.shared.events.Start(func(name string, data map[string]any) {
		defer func() {
			if r := recover(); r != nil {
				a.logger.Error("a handler of events has panicked", zap.String("event", name), zap.Any("panic", r), zap.Stack("stack"))
			}
		}()
		s.emit.Emit(a.ctx, name, data)
	}, a.tuning.AnnounceWindow)
	a.mu.Lock()
	a.stopEvents = stop
	a.mu.Unlock()
	if a.hasStopped() { // meanwhile
		stop()
	}
	return nil
}

func (a *App) hasStopped() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.stopped
}

// reporter counts what an issuer does, and has what somebody may have to know emitted and kept.
type reporter struct {
	*metrics.CA
	app     *App
	ca      string
	account string
}

// Noticed implements acmepersist.Observer.
func (o reporter) Noticed(n acmepersist.Notice) { o.app.shared.events.Notice(n) }

// Records implements acmepersist.Observer.
func (o reporter) Records(onDemand bool, seen acmepersist.Records) {
	o.app.shared.registry.Looked(o.app.waits, o.ca, o.account, onDemand, seen.Faults)
	seen.Faults = nil // these are counted
	o.CA.Records(onDemand, seen)
}

// Interface guards
var (
	_ caddyevents.Handler  = startEvents{}
	_ acmepersist.Observer = reporter{}
)
