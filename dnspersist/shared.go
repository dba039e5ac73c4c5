package dnspersist

import (
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/publish"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/internal/tuning"
)

const (
	// orphanFor is how long a watch, or an announcement, goes on while no configuration owns it: during a
	// reload the old one may be gone before the new one has asked.
	orphanFor = 2 * time.Minute
	// handBacks is how many names are retried at once for each CA: one that does not hand
	// out its certificates keeps nobody else waiting.
	handBacks = 32
)

// shared is the state of the process that survives reloads.
type shared struct {
	scheduler *propagation.Scheduler
	announcer *announcer
	faults    serverFaults
	// providers is what is known of the DNS providers.
	providers publish.Process

	mu sync.Mutex
	// slots are for the hand-backs, by CA.
	slots  map[string]chan struct{}
	parked map[string]*parked
	guests guests
	// removals is when records that were written on demand were last looked through, by account.
	removals map[string]time.Time
	closed   bool
	logger   *zap.Logger
	// apps are those of the configurations that were started and have not ended, the newest last.
	apps []*App
	// nextRead and nextLook are when the CAs' directories are compared next, and standing
	// records looked at: a configuration need not last until then.
	nextRead, nextLook time.Time
	// leases are nil until they are first looked at.
	leases *leases
	// orphan is the timer that ends watches which nobody wants any more.
	orphan *time.Timer
}

func newShared(t tuning.Values) *shared {
	s := &shared{
		scheduler: propagation.NewScheduler(propagation.SchedulerConfig{MinInterval: t.MinPoll, MaxInterval: t.MaxPoll}),
		slots:     make(map[string]chan struct{}),
		parked:    make(map[string]*parked),
		logger:    zap.NewNop(),
	}
	s.announcer = newAnnouncer(s.log)
	return s
}

// Destruct implements caddy.Destructor: the last configuration is gone.
func (s *shared) Destruct() error {
	s.mu.Lock()
	s.closed = true
	var ends []func(*shared)
	for _, p := range s.parked {
		ends = append(ends, p.end())
	}
	s.parked, s.guests = make(map[string]*parked), guests{}
	if s.orphan != nil {
		s.orphan.Stop()
	}
	s.mu.Unlock()
	for _, end := range ends {
		end(s)
	}
	s.announcer.close()
	s.scheduler.Close()
	return nil
}

// slotsOf are those of a CA. s.mu is held.
func (s *shared) slotsOf(ca string) chan struct{} {
	slots := s.slots[ca]
	if slots == nil {
		slots = make(chan struct{}, handBacks)
		s.slots[ca] = slots
	}
	return slots
}

// setLogger takes the newest configuration's logger.
func (s *shared) setLogger(l *zap.Logger) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.logger = l
}

func (s *shared) log() *zap.Logger {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.logger
}
