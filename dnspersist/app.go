package dnspersist

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddytls"
	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/events"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/fair"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/managed"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/metrics"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/parking"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/publish"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
	"github.com/dnspersist/caddy-dnspersist/internal/tuning"
)

func init() {
	caddy.RegisterModule(App{})
}

// App watches the domains that wait for their record or for the CA, for all issuers
// of the module `tls.issuance.dns_persist`. They start it, and it needs no
// configuration.
//
// It emits events: `dns_persist_record_needed`, `dns_persist_record_wrong`, `dns_persist_record_complete`,
// `dns_persist_record_gone`, `dns_persist_record_ending`, `dns_persist_record_published`, `dns_persist_ca_changed` and
// `dns_persist_account_lost`. Their data contain what others have put into their DNS: use them as data, never as a
// part of a command line.
type App struct {
	// What names of on-demand TLS may cost.
	OnDemand *OnDemand `json:"on_demand,omitempty"`

	// Further networks, as CIDR ranges or addresses, in which no issuer asks a name server without
	// `allow_private_ns`: those that only your machines reach although their addresses are public
	// ones, such as your own NAT64 prefix. An issuer's own `dns.private_networks` add to these.
	PrivateNetworks []string `json:"private_networks,omitempty"`

	// What Caddy's metrics have beside the figures of each CA.
	Metrics *Metrics `json:"metrics,omitempty"`

	ctx    caddy.Context
	logger *zap.Logger
	shared *shared
	// waits is this configuration, as far as names wait for it.
	waits *parking.Configuration
	// tuning is for tests: it is what was in force when this configuration was provisioned.
	tuning tuning.Values

	// alive ends when this configuration is replaced: names are retried with
	// it, so that nothing is issued for a configuration that is gone.
	alive  context.Context
	cancel context.CancelFunc
	work   *sync.WaitGroup

	mu               *sync.Mutex
	started, stopped bool
	// early are the events of certificates that came before the start.
	early []certificateEvent
	// stopEvents ends that this configuration emits events; nil if it does not.
	stopEvents func()
	// release gives back the reference to what is shared, once.
	release func() error
	// planned is what the configuration manages, worked out when it is first asked for.
	planned func() planned
	// onDemand is OnDemand with its defaults.
	onDemand     OnDemand
	storageTried *storageTried
	// takenUp are the names for which an attempt has come to an issuer, but for those on demand.
	takenUp map[string]bool
}

// CaddyModule returns the Caddy module information.
func (App) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "dns_persist",
		New: func() caddy.Module { return new(App) },
	}
}

// Provision sets up the app. It reads no other app: issuers are provisioned while
// theirs is.
func (a *App) Provision(ctx caddy.Context) error {
	a.ctx, a.logger, a.tuning = ctx, ctx.Logger(), tuning.Get()
	a.work, a.mu, a.storageTried = new(sync.WaitGroup), new(sync.Mutex), new(storageTried)
	a.onDemand, a.planned = a.OnDemand.withDefaults(), sync.OnceValue(a.newPlanned)
	a.alive, a.cancel = context.WithCancel(context.Background())
	value, _, err := pool.LoadOrNew(poolKey, func() (caddy.Destructor, error) { return newShared(a.tuning), nil })
	if err != nil {
		return fmt.Errorf("getting what survives reloads: %w", err)
	}
	a.shared, a.takenUp = value.(*shared), make(map[string]bool)
	a.release = sync.OnceValue(func() error {
		_, err := pool.Delete(poolKey)
		return err
	})
	a.shared.registry.SetLogger(a.logger)
	a.waits = &parking.Configuration{
		OnDemand: a.onDemandOwners,
		Go:       a.spawn, Logger: a.logger,
		Managed:     func() iter.Seq[string] { return maps.Keys(a.planned().names) },
		CA:          func(domain string) (string, bool) { return a.planned().ca(domain) },
		IsOnDemand:  func(domain string) bool { return a.planned().isOnDemand(domain) },
		Certificate: a.certificate,
		Names:       func(domain string) bool { return a.planned().domains[domain] },
		Limits: parking.Limits{
			MaxWaiting: a.onDemand.MaxWaiting, MaxWaitingPerDomain: a.onDemand.MaxWaitingPerDomain, ForgetAfter: time.Duration(a.onDemand.ForgetAfter),
		},
		Timing: parking.Timing{
			Retry: a.tuning.Retry, AnnounceWindow: a.tuning.AnnounceWindow, AnnounceAgain: a.tuning.AnnounceAgain,
			DiagnoseAfter: a.tuning.DiagnoseAfter, Lease: a.tuning.Lease,
		},
	}
	a.registerMetrics()
	return a.subscribeToStart(ctx)
}

// Validate checks what is configured.
func (a *App) Validate() error {
	errs := []error{a.OnDemand.validate()}
	if _, err := prefixes(a.PrivateNetworks); err != nil {
		errs = append(errs, fmt.Errorf("private_networks: %w", err))
	}
	return errors.Join(errs...)
}

// Start reports what cannot work, and begins what is done daily.
func (a *App) Start() error {
	a.planned() // the registry asks for it under its lock
	a.shared.registry.Start(a.waits)
	certificateEvents{a}.start()
	a.warnAtLoad()
	a.spawn(a.readDirectories)
	a.spawn(a.lookAtNames)
	a.spawn(func(alive context.Context) { a.askAgain(alive, (*acmepersist.Issuer).ReadDirectory) })
	a.spawn(func(alive context.Context) { a.shared.registry.Poll(alive, a.waits) })
	a.spawn(a.watchStorage)
	return nil
}

// planned is what a configuration manages.
type planned struct {
	managed.Plan[*Issuer]
	// names are those with a certificate, with the issuer that manages each: a policy has one of ours at most.
	names map[string]*Issuer
	// domains are the registered ones of all that it names.
	domains map[string]bool
	// hasTLS is false where only Caddy's admin endpoint has an issuer of ours.
	hasTLS bool
}

// newPlanned works out what the configuration manages. All apps are provisioned when it is asked for.
func (a *App) newPlanned() planned {
	p := planned{names: make(map[string]*Issuer), domains: make(map[string]bool)}
	p.Plan = managed.Loaded(a.ctx, func(i certmagic.Issuer) (*Issuer, bool) {
		iss, ok := i.(*Issuer)
		return iss, ok
	})
	_, err := a.ctx.AppIfConfigured("tls")
	p.hasTLS = err == nil
	names := p.Names()
	for _, n := range names {
		p.names[n] = p.Serving(n)[0]
	}
	for _, n := range append(names, p.Subjects()...) {
		if normal, err := record.Normalize(n); err == nil {
			p.domains[fair.Domain(record.Base(normal))] = true
		}
	}
	return p
}

// ca is the CA of the issuer that manages a name; a policy has one of ours at most.
func (p planned) ca(name string) (ca string, isAlone bool) {
	iss := p.names[name]
	if iss == nil {
		return "", false
	}
	return iss.CA, !iss.isInUse() || owner{iss}.IsAlone()
}

// isOnDemand reports whether visitors choose a name, which an issuer of ours then serves.
func (p planned) isOnDemand(name string) bool {
	return p.names[name] == nil && slices.ContainsFunc(p.Serving(name), func(iss *Issuer) bool { return owner{iss}.IsOnDemand() })
}

// certificate is planned.certificate while the app runs: CertMagic's jobs go on for a while after it, and Caddy's
// cache, which is gone with the last configuration, does not expect to be asked then.
func (a *App) certificate(domain string) parking.Certificate {
	a.mu.Lock()
	if a.stopped {
		a.mu.Unlock()
		return parking.Certificate{}
	}
	a.work.Add(1)
	a.mu.Unlock()
	defer a.work.Done()
	return a.planned().certificate(domain)
}

// certificate is the one for exactly this name that Caddy serves, of those the one that ends last.
func (p planned) certificate(name string) (c parking.Certificate) {
	if !p.hasTLS {
		return c // there is no cache
	}
	var last *x509.Certificate
	for _, cert := range caddytls.AllMatchingCertificates(name) {
		if cert.Leaf != nil && slices.Contains(cert.Names, name) && (last == nil || cert.Leaf.NotAfter.After(last.NotAfter)) {
			last = cert.Leaf
		}
	}
	if last == nil {
		return c
	}
	c.NotAfter = last.NotAfter
	if iss := p.names[name]; iss != nil {
		ratio := certmagic.DefaultRenewalWindowRatio
		if iss.isInUse() {
			ratio = cmp.Or(iss.rt.config().RenewalWindowRatio, ratio)
		}
		c.Urgent = acmepersist.Urgent(last, ratio)
	}
	return c
}

// isWide reports whether a wildcard is managed with a CA below a validation name.
func (p planned) isWide(ca, validationName string) bool {
	base := strings.TrimPrefix(validationName, record.Label+".")
	return slices.ContainsFunc(p.Below(base), func(iss *Issuer) bool { return iss.CA == ca })
}

// Stop ends the retries of this configuration and waits for them.
func (a *App) Stop() error {
	a.end()
	a.work.Wait()
	return nil
}

// onDemandOwners are the issuers through which a visitor of a domain would have its certificate obtained.
func (a *App) onDemandOwners(domain string) (all []parking.Owner) {
	for _, iss := range a.planned().Serving(domain) {
		if iss.isInUse() && (owner{iss}).IsOnDemand() {
			all = append(all, owner{iss})
		}
	}
	return all
}

// Cleanup gives up what is shared. It also ends an app that was never started
// because another one failed.
func (a *App) Cleanup() error {
	if a.shared == nil {
		return nil // Provision has failed
	}
	_ = a.Stop()
	// a.shared stays: CertMagic's jobs of this configuration may still come by
	return a.release()
}

func (a *App) end() {
	a.mu.Lock()
	stopped, stopEvents := a.stopped, a.stopEvents
	a.stopped = true
	a.mu.Unlock()
	a.cancel()
	if !stopped && stopEvents != nil {
		stopEvents()
	}
	if !stopped {
		a.shared.registry.End(a.waits)
	}
}

// spawn runs fn unless the app has ended; Stop waits for it.
func (a *App) spawn(fn func(ctx context.Context)) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.stopped {
		return false
	}
	a.work.Go(func() { fn(a.alive) })
	return true
}

// Interface guards
var (
	_ caddy.App          = (*App)(nil)
	_ caddy.Provisioner  = (*App)(nil)
	_ caddy.Validator    = (*App)(nil)
	_ caddy.CleanerUpper = (*App)(nil)
)

// pool holds what survives a reload: domains wait on, and no name is asked for again.
var pool = caddy.NewUsagePool()

const poolKey = "dns_persist"

// shared is the state of the process that survives reloads.
type shared struct {
	registry *parking.Registry
	// lanes are the ways to all CAs.
	lanes   *acmepersist.Lanes
	metrics *metrics.Metrics
	events  *events.Center
	// providers is what is known of the DNS providers.
	providers publish.Process
	// starts are those of CertMagic's jobs.
	starts starts

	mu sync.Mutex
	// removals is when records that were written on demand were last looked through, by account.
	removals map[string]time.Time
	// nextRead and nextLook are when the CAs' directories are compared next, and published
	// records looked at: a configuration need not last until then. nextAsk is when a CA is asked again
	// that was down, or has not accepted the account.
	nextRead, nextLook, nextAsk time.Time
	// hasRemembered is true once it was read what earlier processes have found of published records.
	hasRemembered atomic.Bool
}

func newShared(t tuning.Values) *shared {
	m, registry := metrics.New(), parking.New(propagation.SchedulerConfig{MinInterval: t.MinPoll, MaxInterval: t.MaxPoll})
	return &shared{
		registry:  registry,
		lanes:     acmepersist.NewLanes(),
		metrics:   m,
		events:    events.New(registry),
		providers: publish.Process{Called: m.Called},
		starts:    newStarts(),
	}
}

// Destruct implements caddy.Destructor: the last configuration is gone.
func (s *shared) Destruct() error {
	s.events.Close()
	s.lanes.Close()
	s.registry.Close()
	return nil
}

// soonest is how long after a reload what is due begins at the earliest: Caddy has given the
// issuers their names then.
const soonest = 5 * time.Second

// due returns how long a configuration that has started waits for work that is done in turn by
// one after the other: until the time at which it is due, but no longer than most. first is how
// long the first one waits.
func (s *shared) due(at *time.Time, first, most time.Duration) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if at.IsZero() {
		*at = time.Now().Add(first)
		return first
	}
	return min(max(time.Until(*at), min(soonest, first)), most)
}

// again notes when such work is due next.
func (s *shared) again(at *time.Time, wait time.Duration) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	*at = time.Now().Add(wait)
	return wait
}

// removeEvery is how often records that were written on demand are looked through.
const removeEvery = 24 * time.Hour

// mayRemove reports whether it is time to look through the records of an account, and notes it.
func (s *shared) mayRemove(account string, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now.Sub(s.removals[account]) < removeEvery {
		return false
	}
	if s.removals == nil {
		s.removals = make(map[string]time.Time)
	}
	s.removals[account] = now
	return true
}
