package dnspersist

import (
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/parking"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/publish"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/internal/tuning"
)

// pool holds what survives a reload: domains wait on, and no name is asked for again.
var pool = caddy.NewUsagePool()

const poolKey = "dns_persist"

// shared is the state of the process that survives reloads.
type shared struct {
	registry *parking.Registry
	// providers is what is known of the DNS providers.
	providers publish.Process

	mu sync.Mutex
	// removals is when records that were written on demand were last looked through, by account.
	removals map[string]time.Time
	// nextRead and nextLook are when the CAs' directories are compared next, and published
	// records looked at: a configuration need not last until then.
	nextRead, nextLook time.Time
}

func newShared(t tuning.Values) *shared {
	return &shared{registry: parking.New(propagation.SchedulerConfig{MinInterval: t.MinPoll, MaxInterval: t.MaxPoll})}
}

// Destruct implements caddy.Destructor: the last configuration is gone.
func (s *shared) Destruct() error {
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
