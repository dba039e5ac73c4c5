package parking

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
	"github.com/dnspersist/caddy-dnspersist/internal/walltime"
)

const (
	// leaseTick is how often a node of a cluster makes sure which one polls the names that
	// wait, leaseTicks for how many of them that one is believed to be alive.
	leaseTick  = 2 * time.Minute
	leaseTicks = 3
	// followerPace is how much slower the others poll: not never, for their configuration
	// may have names that the polling node does not know.
	followerPace = 20
)

// node distinguishes this process from the other nodes of a cluster.
var node = rand.Text()

// instance is Caddy's own name for this installation, which survives a restart; empty if it cannot
// be known. Processes that share a data directory share it.
var instance = sync.OnceValue(func() string {
	id, err := caddy.InstanceID()
	if err != nil {
		return ""
	}
	return id.String()
})

// lease is which node polls the names that wait for records of one CA.
type lease struct {
	Node     string    `json:"node"`
	Instance string    `json:"instance,omitempty"`
	Until    time.Time `json:"until"`
}

// Check reports what a file has to hold.
func (l *lease) Check() error {
	if l.Node == "" || l.Until.IsZero() {
		return errors.New("node or until is missing")
	}
	return nil
}

// leases are those that this process has taken or found taken, by the folder of their CA.
type leases struct {
	node, instance string

	mu    sync.Mutex
	known map[string]bool
	held  map[string]state.Store
}

func newLeases(node, instance string) *leases {
	return &leases{node: node, instance: instance, known: make(map[string]bool), held: make(map[string]state.Store)}
}

// Poll lets one node of a cluster do the polling for a configuration as long as that lives, and
// notices what the others have obtained.
func (r *Registry) Poll(alive context.Context, c *Configuration) {
	p := &poller{r, c}
	tick := cmp.Or(c.Timing.Lease, leaseTick)
	timer := time.NewTicker(tick)
	defer timer.Stop()
	for {
		select {
		case <-alive.Done():
			p.end(alive)
			return
		case <-timer.C:
		}
		p.lead(alive, leaseTicks*tick)
	}
}

// poller sees to it that one node polls what waits for a configuration.
type poller struct {
	*Registry
	configuration *Configuration
}

// lead goes through the domains that wait for the configuration.
func (p *poller) lead(ctx context.Context, lasts time.Duration) {
	own := p.ownLeases()
	leads := make(map[string]bool)
	for e, o := range p.held() {
		st := o.Storage()
		if _, known := leads[st.Folder]; !known {
			leads[st.Folder] = own.take(ctx, st, lasts)
		}
		pace := 1.0
		if !leads[st.Folder] {
			pace = followerPace
		}
		p.scheduler.Pace(e.key, pace)
		if (!leads[st.Folder] || p.isInLine(e)) && e.isServed(ctx, o) {
			e.retry("another node has its certificate", zapcore.InfoLevel)
		}
	}
}

// held are the domains that wait and would be retried through the configuration.
func (p *poller) held() map[*entry]Owner {
	p.mu.Lock()
	defer p.unlock()
	all := make(map[*entry]Owner)
	for _, e := range p.entries {
		if o := e.newest(); e.isHeld && o != nil && o.Configuration() == p.configuration {
			all[e] = o
		}
	}
	return all
}

// isInLine reports whether the domain waits for nothing but the CA: another node may come to its turn first.
func (p *poller) isInLine(e *entry) bool {
	p.mu.Lock()
	defer p.unlock()
	return e.hold.Reason == acmepersist.ReasonQueued || e.hold.Reason == acmepersist.ReasonProcessing
}

// isServed reports whether storage has a certificate that is newer than what the domain waits
// to replace.
func (e *entry) isServed(ctx context.Context, o Owner) bool {
	e.registry.mu.Lock()
	notAfter := e.hold.NotAfter
	e.registry.unlock()
	cert := o.Stored(ctx, e.domain)
	return cert != nil && time.Now().Before(cert.NotAfter) && (notAfter.IsZero() || cert.NotAfter.After(notAfter))
}

// ownLeases are those of this process. The first call reads the instance's name from disk.
func (p *poller) ownLeases() *leases {
	here := instance()
	p.mu.Lock()
	defer p.unlock()
	if p.leases == nil {
		p.leases = newLeases(node, here)
	}
	return p.leases
}

// end gives the leases back when the last configuration ends, so that whoever polls next need
// not wait until they run out.
func (p *poller) end(ctx context.Context) {
	p.mu.Lock()
	goesOn := slices.ContainsFunc(p.configurations, func(other *Configuration) bool { return other != p.configuration })
	l := p.leases
	p.unlock()
	if goesOn || l == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), giveBackWithin)
	defer cancel()
	l.giveBack(ctx)
}

// giveBackWithin bounds what a storage may take of the time in which Caddy stops.
const giveBackWithin = 5 * time.Second

const leaseFile = "poller.json"

// take reports whether this node is the one that polls. Two that begin at the same
// time may both for one tick, which costs some queries only; so there is no lock.
//
// When a process looks for the first time, the lease of its own instance is its own: a process that
// was killed has left it. If that one lives after all, it finds itself followed with its next look.
func (l *leases) take(ctx context.Context, st state.Store, lasts time.Duration) bool {
	l.mu.Lock()
	first := !l.known[st.Folder]
	l.known[st.Folder] = true
	l.mu.Unlock() // a storage may hang
	key := st.Key(leaseFile)
	var held lease
	found, err := st.Load(ctx, key, &held)
	if err != nil {
		st.Logger.Debug("who polls is not known", zap.Error(err))
		return true
	}
	own := held.Node == l.node || first && l.instance != "" && held.Instance == l.instance
	// one that lasts longer was taken while that node's clock was ahead
	if left := walltime.Until(held.Until); found && !own && left > 0 && left <= 2*lasts {
		l.mu.Lock()
		delete(l.held, st.Folder)
		l.mu.Unlock()
		return false
	}
	if err := st.Save(ctx, key, lease{Node: l.node, Instance: l.instance, Until: walltime.Now().Add(lasts).UTC()}); err != nil {
		st.Logger.Debug("the lease for polling was not stored", zap.Error(err))
		return true
	}
	l.mu.Lock()
	l.held[st.Folder] = st
	l.mu.Unlock()
	return true
}

// giveBack removes the leases that are still this node's.
func (l *leases) giveBack(ctx context.Context) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for folder, st := range l.held {
		var held lease
		found, err := st.Load(ctx, st.Key(leaseFile), &held)
		if err == nil && found && held.Node == l.node {
			err = st.Remove(ctx, st.Key(leaseFile))
		}
		if err != nil {
			st.Logger.Debug("the lease for polling was not given back", zap.Error(err))
		}
		delete(l.held, folder)
	}
}
