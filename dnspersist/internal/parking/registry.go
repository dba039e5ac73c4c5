// Package parking keeps the domains that wait for their certificate. Without it CertMagic would hold a
// job and a lock for each of them and ask again on a schedule of its own, a reload would begin every
// wait anew, and nobody would be asked for the record.
//
// A domain that waits costs nothing: an attempt that comes for it is answered from memory, while DNS
// is watched. It is retried once that is worth it, through the newest live configuration that wants
// it. Waits outlive reloads; one without a configuration ends after two minutes.
//
// Only where our issuer is the only one of its policy does a domain wait. Beside others the next one
// has its turn at once: the record is announced, and CertMagic decides when it tries again.
//
// The registry is also the one place that knows where the domains are: Snapshot, Of and Subscribe
// are for whoever asks.
package parking

import (
	"context"
	"crypto/x509"
	"iter"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/fair"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

// Configuration is a configuration of Caddy, as far as domains wait for it.
type Configuration struct {
	// Go runs fn until the configuration ends; it reports whether that has not happened yet.
	Go func(fn func(alive context.Context)) bool
	// Managed are the domains that the configuration manages with an issuer of ours. May be nil.
	Managed func() iter.Seq[string]
	// CA is the directory URL of the one that manages a domain, empty if none does; isAlone is false beside
	// other issuers.
	CA func(domain string) (ca string, isAlone bool)
	// IsOnDemand reports whether a domain that the configuration does not name is served by an issuer of ours for
	// visitors. May be nil.
	IsOnDemand func(domain string) bool
	// Certificate is the one for a domain that is served now; zero if there is none. It is never called with the
	// registry's lock, for what it asks may be held up. May be nil.
	Certificate func(domain string) Certificate
	// OnDemand are the issuers through which a visitor of a domain would have its certificate obtained.
	// May be nil.
	OnDemand func(domain string) []Owner
	// Names reports whether the configuration names a registered domain.
	Names  func(domain string) bool
	Limits Limits
	Timing Timing
	Logger *zap.Logger

	// started is when it has started.
	started time.Time
	// ended is true once it owns no domain any more, and never will again. It is guarded by the registry.
	ended bool
	// certificates are by domain, and guarded by the registry.
	certificates map[string]certificate
}

// Timing has times that tests shorten; zero means the default.
type Timing struct {
	// Retry is the longest time between two attempts, AnnounceWindow how long records are collected to
	// be announced together, AnnounceAgain when they are announced again.
	Retry, AnnounceWindow, AnnounceAgain time.Duration
	// DiagnoseAfter is how long a record is missing before it is looked for in wrong places.
	DiagnoseAfter time.Duration
	// Lease is how often it is made sure which node of a cluster polls.
	Lease time.Duration
}

// Owner is an issuer of a configuration. It is comparable, and the same for all attempts.
type Owner interface {
	Configuration() *Configuration
	// Key is the same for owners that ask the same CA for the same records: a wait goes on from one to
	// the other over a reload.
	Key() string
	// IsAlone reports whether it is the only issuer of its policy, IsOnDemand whether strangers choose
	// the domains.
	IsAlone() bool
	IsOnDemand() bool
	// Obtain has CertMagic obtain the certificate of a domain, or renew the one that ends at notAfter.
	// done means that nothing is waited for any more.
	Obtain(ctx context.Context, domain string, notAfter time.Time) (done bool, err error)
	// Stored is the certificate in storage, nil if there is none.
	Stored(ctx context.Context, domain string) *x509.Certificate
	// Storage is where the nodes of a cluster agree about who polls.
	Storage() state.Store
}

// Registry has the domains that wait. It outlives configurations.
type Registry struct {
	scheduler *propagation.Scheduler

	mu      sync.Mutex
	closed  bool
	logger  *zap.Logger
	entries map[string]*entry
	// byDomain has the same entries.
	byDomain map[string][]*entry
	// waiting has the keys of the entries, for whoever must not wait for mu, see Waits.
	waiting  sync.Map
	attempts map[string][]*Attempt // by domain
	// configurations are those that were started and have not ended, the newest last.
	configurations []*Configuration
	guests         guests
	announcements  *announcements
	faults         serverFaults
	looked         lookedFaults // what looks have found wrong with records of domains that are served
	digests        map[matter]*digest
	lines          map[string]*line // by CA
	leases         *leases          // nil until they are first looked at
	// orphans is the timer that ends the waits which nobody wants any more.
	orphans     *time.Timer
	subscribers []*subscriber
	reported    map[string]uint64 // hashes of what subscribers know, by domain

	// todo is done once the lock is given back.
	todo []func()
}

// New returns a registry that polls by the scheduler's configuration.
func New(polls propagation.SchedulerConfig) *Registry {
	r := &Registry{
		scheduler: propagation.NewScheduler(polls),
		logger:    zap.NewNop(),
		entries:   make(map[string]*entry),
		byDomain:  make(map[string][]*entry),
		attempts:  make(map[string][]*Attempt),
		lines:     make(map[string]*line),
		reported:  make(map[string]uint64),
		faults:    make(serverFaults),
		looked:    make(lookedFaults),
		digests:   make(map[matter]*digest),
	}
	r.announcements = newAnnouncements(r)
	return r
}

// unlock gives the lock back and does what has to be done without it.
func (r *Registry) unlock() {
	todo := r.todo
	r.todo = nil
	r.mu.Unlock()
	for _, fn := range todo {
		fn()
	}
}

// later has fn run once the lock is given back.
func (r *Registry) later(fn func()) { r.todo = append(r.todo, fn) }

// log logs once the lock is given back.
func (r *Registry) log(write func(*zap.Logger)) {
	logger := r.logger
	r.later(func() { write(logger) })
}

// SetLogger takes the newest configuration's logger.
func (r *Registry) SetLogger(l *zap.Logger) {
	r.mu.Lock()
	defer r.unlock()
	r.logger = l
}

// Close ends all waits.
func (r *Registry) Close() {
	r.mu.Lock()
	r.closed = true
	for _, e := range r.entries {
		e.remove()
	}
	if r.orphans != nil {
		r.orphans.Stop()
	}
	if r.announcements.timer != nil {
		r.announcements.timer.Stop()
	}
	for _, d := range r.digests {
		if d.timer != nil {
			d.timer.Stop()
		}
	}
	r.unlock()
	r.announcements.cancel()
	r.announcements.working.Wait()
	r.scheduler.Close()
}

// entry is a domain that waits, for owners with one key. Its fields are guarded by the registry.
type entry struct {
	registry *Registry
	key      string
	domain   string
	// isHeld is false for a domain that is announced only.
	isHeld bool
	hold   *acmepersist.Hold
	since  time.Time
	news   news // what the log has of the watch's report
	// code is what is wrong with what is published; empty if nothing is known to be.
	code   string
	logged logged
	// readyAt is when the watch last saw the record complete, where that ends the wait.
	readyAt time.Time
	// retryAt is when the domain is retried whatever DNS shows; zero once that time has come.
	retryAt time.Time
	timer   *time.Timer
	// due is when that is by the process's own time, which goes on over a change of the clock.
	due time.Time
	// isInLine is true until it is begun to be retried, and line is where others have to wait until it comes to a lane.
	isInLine bool
	line     *line
	// retries counts those that were begun.
	retries int
	// busyUntil is while CertMagic works on the domain at our bidding, and atWork counts the attempts
	// that have come to an issuer of ours, however long they take.
	busyUntil time.Time
	atWork    int
	// failures counts the attempts in a row that failed with something else than a Hold, failure is the
	// last one, and the domain is not retried before failedUntil.
	failures    int
	failure     error
	failedUntil time.Time
	// pokedAt is when it was last tried because somebody has asked for it, and pokeTimer is set while it is too
	// early for that again, which it is until pokeAt.
	pokedAt, pokeAt time.Time
	pokeTimer       *time.Timer
	// owners are the live ones, the newest last.
	owners []Owner
	// adopted is the one of them through which nobody has asked for it yet.
	adopted Owner
	// heir is a configuration that wants what is announced, and has not asked yet.
	heir      *Configuration
	stopWatch func()
	// asked is the last Hold with something to watch while the record is announced, else nil.
	asked *acmepersist.Hold
	// announced is what it is announced with; nil with asked.
	announced *announcement
	// guest is set if the domain was asked for on demand.
	guest *guest
}

// keyOf is the key of an owner's entry. Beside other issuers it is another one: there a domain is
// announced only, while a configuration in which ours is alone may still live.
func keyOf(o Owner, domain string) string {
	if !o.IsAlone() {
		return o.Key() + "|announced|" + domain
	}
	return o.Key() + "|" + domain
}

// report is what DNS has shown last.
func (e *entry) report() propagation.Report {
	if e.hold.Watch == nil {
		return propagation.Report{}
	}
	return e.hold.Watch.Report
}

// remove ends the wait of an entry, its watch and its announcement.
func (e *entry) remove() {
	r := e.registry
	if r.entries[e.key] == e {
		delete(r.entries, e.key)
		r.waiting.Delete(e.key)
		others := slices.DeleteFunc(r.byDomain[e.domain], func(other *entry) bool { return other == e })
		if r.byDomain[e.domain] = others; len(others) == 0 {
			delete(r.byDomain, e.domain)
		}
	}
	r.guests.remove(e)
	r.announcements.remove(e)
	if e.timer != nil {
		e.timer.Stop()
	}
	if e.pokeTimer != nil {
		e.pokeTimer.Stop()
	}
	e.unwatch()
	if giveUp := e.hold.GiveUp; giveUp != nil {
		r.later(giveUp)
	}
	r.changed(e.domain)
}

// unwatch ends the watch of DNS, if there is one.
func (e *entry) unwatch() {
	if stop := e.stopWatch; stop != nil {
		e.stopWatch = nil
		e.registry.later(stop)
	}
}

// freeAt is when the domain may be retried: CertMagic would begin a second job beside one that is
// under way, and have it wait for the lock.
func (e *entry) freeAt(now time.Time) time.Time {
	at := e.failedUntil
	if e.busyUntil.After(at) {
		at = e.busyUntil
	}
	if next := now.Add(untroubled); (e.atWork > 0 || e.isInLine) && next.After(at) {
		at = next
	}
	return at
}

// isBusy reports whether somebody works on the domain, or is about to.
func (e *entry) isBusy(now time.Time) bool {
	return now.Before(e.busyUntil) || e.atWork > 0 || e.isInLine
}

// own makes an owner the newest one. CertMagic's jobs of a configuration that has ended may
// still come by: it would own the domain for ever, for it ends only once. A domain that a configuration
// manages is no guest any more, for no handshake would bring it back; one that is left to visitors becomes one.
func (e *entry) own(o Owner) {
	if o.Configuration().ended {
		return
	}
	e.owners = append(slices.DeleteFunc(e.owners, func(other Owner) bool { return other == o }), o)
	switch guests := &e.registry.guests; {
	case !o.IsOnDemand() && e.guest != nil:
		guests.remove(e)
		e.guest = nil
	case o.IsOnDemand() && e.guest == nil:
		e.guest = &guest{domain: fair.Domain(record.Base(e.domain)), interest: time.Now()}
		e.sees(e.report())
		guests.add(e)
	}
}

// newest is the owner through which the domain is retried; nil if none lives.
func (e *entry) newest() Owner {
	e.owners = slices.DeleteFunc(e.owners, func(o Owner) bool { return o.Configuration().ended })
	if len(e.owners) == 0 {
		return nil
	}
	return e.owners[len(e.owners)-1]
}

// isOnDemand reports whether a stranger has chosen the domain: nobody who reads the log has to act.
func (e *entry) isOnDemand() bool {
	if o := e.newest(); o != nil {
		return o.IsOnDemand()
	}
	return e.guest != nil
}

// timing is that of its configuration.
func (e *entry) timing() Timing {
	if o := e.newest(); o != nil {
		return o.Configuration().Timing
	}
	return Timing{}
}

// isOwned reports whether a configuration that lives wants it.
func (e *entry) isOwned() bool {
	return e.newest() != nil || e.heir != nil && !e.heir.ended
}

// Start takes note of a configuration that runs.
func (r *Registry) Start(c *Configuration) {
	r.mu.Lock()
	defer r.unlock()
	if !c.ended {
		c.started = time.Now()
		r.configurations = append(r.configurations, c)
		r.adopt(c)
	}
}

// adopt has a configuration that starts go on with the domains that visitors have asked for: it would
// learn of each with its next visitor only, and its wait would have ended by then.
func (r *Registry) adopt(c *Configuration) {
	if c.OnDemand == nil {
		return
	}
	for _, e := range r.entries {
		if e.guest == nil || !e.isHeld {
			continue
		}
		for _, o := range c.OnDemand(e.domain) {
			if keyOf(o, e.domain) == e.key {
				e.own(o)
				e.adopted = o
			}
		}
	}
}

// orphanFor is how long a wait goes on while no configuration owns it: during a reload the old one may
// be gone before the new one has asked.
const orphanFor = 2 * time.Minute

// End takes a configuration that ends out of all waits.
func (r *Registry) End(c *Configuration) {
	r.mu.Lock()
	defer r.unlock()
	c.ended = true
	for domain := range c.certificates {
		delete(c.certificates, domain)
		r.changed(domain)
	}
	r.configurations = slices.DeleteFunc(r.configurations, func(other *Configuration) bool { return other == c })
	for _, e := range r.entries {
		if !e.isOwned() && !r.closed {
			if r.orphans != nil {
				r.orphans.Stop()
			}
			r.orphans = time.AfterFunc(orphanFor, r.dropOrphans)
			return
		}
	}
}

// dropOrphans ends the waits that no configuration wants any more. What is announced beside other
// issuers is wanted by whichever configuration manages the domain: there nobody may ask for long.
func (r *Registry) dropOrphans() {
	r.mu.Lock()
	announced := make(map[*entry]string) // with the CA
	for _, e := range r.entries {
		switch {
		case e.isOwned():
		case e.isHeld:
			e.remove()
		default:
			announced[e] = e.hold.CA
		}
	}
	configurations := slices.Clone(r.configurations)
	r.unlock()
	if len(announced) == 0 {
		return
	}
	heirs := make(map[*entry]*Configuration)
	for _, c := range configurations {
		asked := make(chan struct{})
		// its end waits for this, for it takes away what the answer is made of
		if !c.Go(func(context.Context) {
			defer close(asked)
			for e, ca := range announced {
				if wanted, _ := c.CA(e.domain); wanted == ca {
					heirs[e] = c
				}
			}
		}) {
			continue
		}
		<-asked
	}
	r.mu.Lock()
	defer r.unlock()
	for e := range announced {
		if c := heirs[e]; c != nil && !c.ended {
			e.heir = c
		}
		if !e.isOwned() {
			e.remove()
		}
	}
}
