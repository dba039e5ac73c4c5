package ask

import (
	"sync"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation/internal/lru"
)

const (
	// maxRemembered bounds the number of addresses of which something is remembered.
	maxRemembered = 10_000
	// memoryFor is how long what was seen of a server counts: more than the day after which
	// published records are looked at again.
	memoryFor = 30 * time.Hour
	// shortTimeout is how long a server that was silent lately is waited for: it has
	// cost the full time once.
	shortTimeout = time.Second
	// tcpAgain is how long TCP is not tried with a server that was silent over it as well.
	tcpAgain = time.Minute
	// ednsAgain is how long a server that does not understand EDNS is asked without.
	ednsAgain = 10 * time.Minute
	// minRTTWait and rttFactor bound how long an answer is waited for over UDP where it is
	// known how long one takes.
	minRTTWait = 400 * time.Millisecond
	rttFactor  = 4
	// reachesFor is how long an answer shows that port 53 can be reached from here.
	reachesFor = 10 * time.Minute
)

// serverMemory is what is remembered of one address.
type serverMemory struct {
	// badSince is since when it has not answered usefully, zero if it does; badLooks counts
	// the questions since then.
	badSince time.Time
	badLooks int
	silent   bool
	// tcpSilent is when it was last silent over TCP, onlyTCP that it answers there alone.
	tcpSilent time.Time
	onlyTCP   bool
	rtt       time.Duration
	// plain counts the times in a row that only a question without EDNS was answered;
	// noEDNS is when it was last clear that EDNS does not work.
	plain  int
	noEDNS time.Time
}

// Memory remembers servers for all Checkers that use the same exchanger, so that one that
// is silent for ever does not cost its time-outs again at every look, nor the wait for
// it at every renewal.
type Memory struct {
	looks   *Limiter // bounds the questions of all
	servers *lru.Cache[string, serverMemory]

	mu       sync.Mutex // nothing is noted meanwhile
	answered time.Time  // when a name server, not a resolver, last answered
}

var (
	memoriesMu sync.Mutex
	memories   = make(map[any]*Memory)
)

// maxMemories bounds the number of exchangers with a memory of their own: a process has
// one, tests have many.
const maxMemories = 64

// memoryOf is the memory for an exchanger, which is comparable.
func memoryOf(e Exchanger) *Memory {
	memoriesMu.Lock()
	defer memoriesMu.Unlock()
	m := memories[e]
	if m == nil {
		if len(memories) >= maxMemories {
			clear(memories)
		}
		m = &Memory{looks: newLookLimiter(), servers: lru.New[string, serverMemory](maxRemembered)}
		memories[e] = m
	}
	return m
}

// recall returns what is known of an address that still counts.
func (m *Memory) recall(addr string) serverMemory {
	s, _ := m.servers.Get(addr)
	return s
}

// note changes what is known of an address.
func (m *Memory) note(addr string, fn func(*serverMemory)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.recall(addr)
	fn(&s)
	m.servers.Put(addr, s, 1, time.Now().Add(memoryFor))
}

// Useful notes that a server has answered usefully for a zone. That does not make it good for
// another one.
func (m *Memory) Useful(addr, zone string) {
	m.note(addr, func(s *serverMemory) { s.badSince, s.badLooks, s.silent = time.Time{}, 0, false })
	m.servers.Drop(addr + " " + zone)
}

// Silent notes that no answer came, and returns since when, and for how many looks, the server has
// been of no use for the zone. Silence is the address's, in all its zones.
func (m *Memory) Silent(addr, zone string) (since time.Time, looks int) {
	m.note(addr, func(s *serverMemory) {
		if s.badSince.IsZero() {
			s.badSince = time.Now()
		}
		s.badLooks++
		s.silent = true
		since, looks = s.badSince, s.badLooks
	})
	if s := m.recall(addr + " " + zone); !s.badSince.IsZero() && s.badSince.Before(since) {
		since, looks = s.badSince, looks+s.badLooks
	}
	return since, looks
}

// Useless notes that an answer came that shows nothing, and returns what Silent does. That a server
// does not serve one zone means nothing for another.
func (m *Memory) Useless(addr, zone string) (since time.Time, looks int) {
	var before serverMemory // silent until now, and still of no use
	m.note(addr, func(s *serverMemory) {
		before = *s
		s.badSince, s.badLooks, s.silent = time.Time{}, 0, false
	})
	m.note(addr+" "+zone, func(s *serverMemory) {
		if s.badSince.IsZero() {
			s.badSince, s.badLooks = before.badSince, before.badLooks
		}
		if s.badSince.IsZero() {
			s.badSince = time.Now()
		}
		s.badLooks++
		since, looks = s.badSince, s.badLooks
	})
	return since, looks
}

// IsSilent reports whether an address was silent when it was last asked.
func (m *Memory) IsSilent(addr string) bool { return m.recall(addr).silent }

// heard notes that a name server has answered.
func (m *Memory) heard() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.answered = time.Now()
}

// Reaches reports whether a name server has answered lately.
func (m *Memory) Reaches() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return !m.answered.IsZero() && time.Since(m.answered) < reachesFor
}
