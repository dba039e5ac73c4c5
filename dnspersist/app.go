package dnspersist

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/managed"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
	"github.com/dnspersist/caddy-dnspersist/internal/tuning"
)

func init() {
	caddy.RegisterModule(App{})
}

// App watches the names whose record does not stand yet, for all issuers of the
// module `tls.issuance.dns_persist`. It is started by them and needs no
// configuration.
type App struct {
	// Bounds for names of on-demand TLS.
	OnDemand *OnDemand `json:"on_demand,omitempty"`

	ctx    caddy.Context
	logger *zap.Logger
	shared *shared
	// tuning is for tests: it is what was in force when this configuration was provisioned.
	tuning tuning.Values

	// alive ends when this configuration is replaced: names are handed back with
	// it, so that nothing is issued for a configuration that is gone.
	alive  context.Context
	cancel context.CancelFunc
	work   *sync.WaitGroup

	mu      *sync.Mutex
	stopped bool
	// released is true once the reference to the shared watches was given back.
	released bool
	// ended is true once the configuration owns no parked name any more, and never will again.
	// It is guarded by shared.mu.
	ended bool
	// wildcards are the names below which a wildcard is managed, by CA, made when first used.
	wildcards map[string]map[string]bool
	// onDemand is OnDemand with its defaults.
	onDemand OnDemand
	// takenUp are the names for which an attempt has come to an issuer, but for those on demand.
	takenUp map[string]bool
	// namedDomains are the registered domains of the configuration's names, made when first used.
	namedDomains map[string]bool
}

// CaddyModule returns the Caddy module information.
func (App) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "dns_persist",
		New: func() caddy.Module { return new(App) },
	}
}

// pool holds what survives a reload: watches go on, and no name is asked for again.
var pool = caddy.NewUsagePool()

const poolKey = "dns_persist"

// Provision sets up the app. It reads no other app: issuers are provisioned while
// theirs is.
func (a *App) Provision(ctx caddy.Context) error {
	a.ctx, a.logger, a.tuning = ctx, ctx.Logger(), tuning.Get()
	a.work, a.mu = new(sync.WaitGroup), new(sync.Mutex)
	a.onDemand = a.OnDemand.withDefaults()
	a.alive, a.cancel = context.WithCancel(context.Background())
	value, _, err := pool.LoadOrNew(poolKey, func() (caddy.Destructor, error) { return newShared(a.tuning), nil })
	if err != nil {
		return fmt.Errorf("getting the shared watches: %w", err)
	}
	a.shared = value.(*shared)
	a.shared.setLogger(a.logger)
	return nil
}

// Validate checks what is configured.
func (a *App) Validate() error { return a.OnDemand.validate() }

// Start says what the configuration makes of the names in it.
func (a *App) Start() error {
	a.shared.started(a)
	a.warnAtLoad()
	a.spawn(a.readDirectories)
	a.spawn(a.lookAtNames)
	a.spawn(a.keepLeases)
	a.spawn(a.watchStorage)
	return nil
}

// livePlan is that of the loaded configuration. All apps are provisioned when it is asked for.
func (a *App) livePlan() managed.Plan[*Issuer] {
	return managed.Loaded(a.ctx, func(i certmagic.Issuer) (*Issuer, bool) {
		iss, ok := i.(*Issuer)
		return iss, ok
	})
}

// isWide reports whether a wildcard is managed with a CA below a validation name.
func (a *App) isWide(ca, validationName string) bool {
	a.mu.Lock()
	bases, known := a.wildcards[ca]
	a.mu.Unlock()
	if !known {
		bases = a.livePlan().Wildcards(func(iss *Issuer) bool { return iss.CA == ca })
		a.mu.Lock()
		if a.wildcards == nil {
			a.wildcards = make(map[string]map[string]bool)
		}
		a.wildcards[ca] = bases
		a.mu.Unlock()
	}
	return bases[strings.TrimPrefix(validationName, record.Label+".")]
}

// Stop ends the hand-backs of this configuration and waits for them.
func (a *App) Stop() error {
	a.end()
	a.work.Wait()
	return nil
}

// Cleanup gives up the shared watches. It also ends an app that was never started
// because another one failed.
func (a *App) Cleanup() error {
	if a.shared == nil {
		return nil // Provision has failed
	}
	a.end()
	a.work.Wait()
	a.mu.Lock()
	released := a.released
	a.released = true
	a.mu.Unlock()
	if released {
		return nil
	}
	// a.shared stays: CertMagic's jobs of this configuration may still come by
	_, err := pool.Delete(poolKey)
	return err
}

func (a *App) end() {
	a.mu.Lock()
	stopped := a.stopped
	a.stopped = true
	a.mu.Unlock()
	a.cancel()
	if !stopped {
		a.shared.disown(a)
	}
}

// spawn runs fn unless the app has ended; Stop waits for it.
func (a *App) spawn(fn func(ctx context.Context)) bool {
	a.mu.Lock()
	if a.stopped {
		a.mu.Unlock()
		return false
	}
	a.work.Add(1)
	a.mu.Unlock()
	go func() {
		defer a.work.Done()
		fn(a.alive)
	}()
	return true
}

// Interface guards
var (
	_ caddy.App          = (*App)(nil)
	_ caddy.Provisioner  = (*App)(nil)
	_ caddy.Validator    = (*App)(nil)
	_ caddy.CleanerUpper = (*App)(nil)
)
