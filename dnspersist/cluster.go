package dnspersist

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io/fs"
	"path"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
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

// lease says which node polls the names that wait for records of one CA.
type lease struct {
	Node  string    `json:"node"`
	Until time.Time `json:"until"`
}

// keepLeases lets one node of a cluster do the polling, and notices what it has obtained.
func (a *App) keepLeases(ctx context.Context) {
	tick := tuning.Or(tuning.Get().Lease, leaseTick)
	timer := time.NewTicker(tick)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
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
			leads[ca] = takeLease(ctx, o.cfg.Storage, ca, lasts, o.iss.rt.logger)
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
	notAfter := p.parking.NotAfter
	s.mu.Unlock()
	cert := acmepersist.StoredCertificate(ctx, o.cfg.Storage, o.iss.IssuerKey(), p.identifier)
	return cert != nil && time.Now().Before(cert.NotAfter) && (notAfter.IsZero() || cert.NotAfter.After(notAfter))
}

// takeLease reports whether this node is the one that polls. Two that begin at the same
// time may both for one tick, which costs some queries only; so there is no lock.
func takeLease(ctx context.Context, storage certmagic.Storage, ca string, lasts time.Duration, logger *zap.Logger) bool {
	key := path.Join("dns_persist", certmagic.StorageKeys.Safe(ca), "poller.json")
	data, err := storage.Load(ctx, key)
	var held lease
	if err == nil && json.Unmarshal(data, &held) == nil && held.Node != node {
		// one that lasts longer was taken while that node's clock was ahead
		if left := time.Until(held.Until); left > 0 && left <= 2*lasts {
			return false
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		logger.Debug("who polls is not known", zap.Error(err))
		return true
	}
	if data, err = json.Marshal(lease{Node: node, Until: time.Now().Add(lasts).UTC()}); err == nil {
		err = storage.Store(ctx, key, data)
	}
	if err != nil {
		logger.Debug("the lease for polling was not stored", zap.Error(err))
	}
	return true
}
