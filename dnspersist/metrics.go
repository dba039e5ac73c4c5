package dnspersist

import (
	"cmp"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/metrics"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/parking"
)

// Metrics says what Caddy's metrics have beside the figures of each CA.
type Metrics struct {
	// Show each name of the configuration by itself: where it is on its way to a certificate, and when its
	// certificate ends. That is two series for each of them. Names of on-demand TLS are never shown, for strangers
	// choose those.
	PerName bool `json:"per_name,omitempty"`
}

func (m *Metrics) unmarshal(d *caddyfile.Dispenser) error {
	if d.NextArg() {
		return d.Errf("metrics takes a block and no argument, as in metrics { per_name }")
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		switch {
		case d.Val() != "per_name":
			return d.Errf("unrecognized option '%s' of metrics: it is not per_name", d.Val())
		case m.PerName:
			return d.Errf("per_name is given twice")
		case d.NextArg():
			return d.Errf("per_name takes no argument")
		}
		m.PerName = true
	}
	if !m.PerName {
		return d.Errf("metrics sets nothing: its block takes per_name")
	}
	return nil
}

// registerMetrics has Caddy's registry, which is another one for each configuration, show ours. The
// certificates are worth more than the metrics: what is wrong with these is logged.
func (a *App) registerMetrics() {
	registry := a.ctx.GetMetricsRegistry()
	if registry == nil {
		return
	}
	cas := sync.OnceValue(a.metricsOfCAs)
	err := a.shared.metrics.Register(registry, metrics.Configuration{
		Each: a.shared.registry.Each,
		CAs: func() []metrics.Used {
			if !a.isStarted() {
				return nil
			}
			return cas()
		},
		CAOf:    a.caOf,
		PerName: cmp.Or(a.Metrics, new(Metrics)).PerName,
	})
	if err != nil {
		a.logger.Error("metrics are not shown, or not all", zap.Error(err))
	}
}

// metricsOfCAs are those that the issuers of this configuration use.
func (a *App) metricsOfCAs() []metrics.Used {
	var all []metrics.Used
	for _, iss := range a.planned().inUse() {
		used := metrics.Used{CA: a.shared.metrics.CA(iss.CA, owner{iss}.account())}
		used.Parallel = func() (int, int) { return a.shared.lanes.State(iss.CA) }
		if orders, window := paceOf(iss); orders > 0 {
			used.OrdersLeft = func() float64 {
				return a.shared.lanes.OrdersLeft(iss.CA, acmepersist.OrderWindow{Orders: orders, Per: window})
			}
		}
		all = append(all, used)
	}
	return all
}

// caOf is the CA of ours that a name is to have its certificate from; empty if none is.
func (a *App) caOf(s parking.Status) string {
	if o, ok := s.Owner.(owner); ok {
		return o.iss.CA
	}
	if a.isStarted() {
		for _, iss := range a.planned().Serving(s.Domain) {
			return iss.CA
		}
	}
	return ""
}

// isStarted reports whether the app was started: before that other apps are still provisioned, and what is
// managed is not known. Somebody may scrape already.
func (a *App) isStarted() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.started
}

// paceOf is how many orders may be made in which time; none for no bound.
func paceOf(iss *Issuer) (orders int, window time.Duration) {
	switch {
	case iss.RateLimit != nil:
		return iss.RateLimit.Orders, time.Duration(iss.RateLimit.Window)
	case len(iss.TrustedRootsPEMFiles) == 0:
		return 10, 10 * time.Second
	}
	return 0, 0
}
