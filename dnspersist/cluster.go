package dnspersist

import (
	"context"
	"crypto/rand"
	"errors"
	"path"
	"slices"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/state"
	"github.com/dnspersist/caddy-dnspersist/internal/tuning"
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

// node tells this process from the other nodes of a cluster.
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

// lease says which node polls the names that wait for records of one CA.
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

// keepLeases lets one node of a cluster do the polling, and notices what it has obtained.
func (a *App) keepLeases(ctx context.Context) {
	tick := tuning.Or(a.tuning.Lease, leaseTick)
	timer := time.NewTicker(tick)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			a.shared.endLeases(ctx, a)
			return
		case <-timer.C:
		}
		a.shared.lead(ctx, a, leaseTicks*tick)
	}
}

// lead goes through the parked names of a configuration.
func (s *shared) lead(ctx context.Context, a *App, lasts time.Duration) {
	leads := make(map[string]bool)
	for _, p := range s.parkedOf(a) {
		o, ok := s.newest(p)
		if !ok || o.iss.rt.app != a {
			continue
		}
		ca := o.iss.IssuerKey()
		if _, known := leads[ca]; !known {
			st := state.Store{Storage: o.cfg.Storage, Folder: path.Join(state.Root, certmagic.StorageKeys.Safe(ca)), Logger: o.iss.rt.logger}
			leads[ca] = s.ownLeases().take(ctx, st, lasts)
		}
		pace := 1.0
		if !leads[ca] {
			pace = followerPace
		}
		s.scheduler.Pace(p.key, pace)
		if !leads[ca] && s.served(ctx, o, p) {
			s.handBack(p, "another node has its certificate")
		}
	}
}

// parkedOf lists the names that are parked for a configuration.
func (s *shared) parkedOf(a *App) []*parked {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []*parked
	for _, p := range s.parked {
		for _, o := range p.owners {
			if o.iss.rt.app == a {
				all = append(all, p)
				break
			}
		}
	}
	return all
}

// newest returns the configuration through which a name would be handed back.
func (s *shared) newest(p *parked) (owner, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return p.newest()
}

// served reports whether storage has a certificate that is newer than what the name waits
// to replace.
func (s *shared) served(ctx context.Context, o owner, p *parked) bool {
	s.mu.Lock()
	notAfter := p.hold.NotAfter
	s.mu.Unlock()
	cert := acmepersist.StoredCertificate(ctx, o.cfg.Storage, o.iss.IssuerKey(), p.identifier)
	return cert != nil && time.Now().Before(cert.NotAfter) && (notAfter.IsZero() || cert.NotAfter.After(notAfter))
}

// ownLeases are those of this process. The first call reads the instance's name from disk.
func (s *shared) ownLeases() *leases {
	here := instance()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.leases == nil {
		s.leases = newLeases(node, here)
	}
	return s.leases
}

// endLeases gives the leases back when the last configuration ends, so that whoever polls next need
// not wait until they run out.
func (s *shared) endLeases(ctx context.Context, a *App) {
	s.mu.Lock()
	goesOn := slices.ContainsFunc(s.apps, func(other *App) bool { return other != a })
	l := s.leases
	s.mu.Unlock()
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
	l.mu.Unlock()
	key := st.Key(leaseFile)
	var held lease
	found, err := st.Load(ctx, key, &held)
	if err != nil {
		st.Logger.Debug("who polls is not known", zap.Error(err))
		return true
	}
	own := held.Node == l.node || first && l.instance != "" && held.Instance == l.instance
	// one that lasts longer was taken while that node's clock was ahead
	if left := time.Until(held.Until); found && !own && left > 0 && left <= 2*lasts {
		l.mu.Lock()
		delete(l.held, st.Folder)
		l.mu.Unlock()
		return false
	}
	if err := st.Save(ctx, key, lease{Node: l.node, Instance: l.instance, Until: time.Now().Add(lasts).UTC()}); err != nil {
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
