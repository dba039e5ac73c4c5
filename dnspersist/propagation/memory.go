package propagation

import (
	"container/list"
	"sync"
	"time"
)

const (
	// maxRemembered bounds the number of addresses of which something is remembered.
	maxRemembered = 10_000
	// memoryFor is how long what was seen of a server counts: more than the day after which
	// standing records are looked at again.
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
	addr string
	// seen is when anything was last noted.
	seen time.Time
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

// memory remembers servers for all Checkers that use the same exchanger, so that one that
// is silent for ever does not cost its time-outs again at every look, nor its grace at
// every renewal.
type memory struct {
	looks *limiter // bounds the questions of all

	mu       sync.Mutex
	servers  map[string]*list.Element
	order    list.List // of *serverMemory, the latest noted first
	answered time.Time // when a name server, not a resolver, last answered
}

var (
	memoriesMu sync.Mutex
	memories   = make(map[any]*memory)
)

// maxMemories bounds the number of exchangers with a memory of their own: a process has
// one, tests have many.
const maxMemories = 64

// memoryOf is the memory for an exchanger, which is comparable.
func memoryOf(e Exchanger) *memory {
	memoriesMu.Lock()
	defer memoriesMu.Unlock()
	m := memories[e]
	if m == nil {
		if len(memories) >= maxMemories {
			clear(memories)
		}
		m = &memory{looks: newLookLimiter(), servers: make(map[string]*list.Element)}
		memories[e] = m
	}
	return m
}

// recall returns what is known of an address that still counts.
func (m *memory) recall(addr string) serverMemory {
	m.mu.Lock()
	defer m.mu.Unlock()
	el := m.servers[addr]
	if el == nil {
		return serverMemory{}
	}
	s := *el.Value.(*serverMemory)
	if time.Since(s.seen) > memoryFor {
		return serverMemory{}
	}
	return s
}

// note changes what is known of an address.
func (m *memory) note(addr string, fn func(*serverMemory)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	el := m.servers[addr]
	if el == nil {
		el = m.order.PushFront(&serverMemory{addr: addr})
		m.servers[addr] = el
	}
	s := el.Value.(*serverMemory)
	if now.Sub(s.seen) > memoryFor {
		*s = serverMemory{addr: addr}
	}
	m.order.MoveToFront(el)
	s.seen = now
	fn(s)
	for m.order.Len() > maxRemembered {
		last := m.order.Back()
		delete(m.servers, last.Value.(*serverMemory).addr)
		m.order.Remove(last)
	}
}

// judged notes the verdict on a server of a zone and returns since when it has been bad for
// that zone, and for how many looks. Silence is the address's, in all its zones; that it does
// not serve one zone says nothing of another, and a good answer from one does not make it
// good for the other.
func (m *memory) judged(addr, zone string, v Verdict) (since time.Time, looks int) {
	ofZone := addr + " " + zone
	if v != VerdictBroken && v != VerdictSilent {
		m.note(addr, func(s *serverMemory) { s.badSince, s.badLooks, s.silent = time.Time{}, 0, false })
		m.drop(ofZone)
		return time.Time{}, 0
	}
	now := time.Now()
	m.note(addr, func(s *serverMemory) {
		since, looks = s.badSince, s.badLooks
		if v == VerdictBroken {
			s.badSince, s.badLooks, s.silent = time.Time{}, 0, false
			return
		}
		if s.badSince.IsZero() {
			s.badSince = now
		}
		s.badLooks++
		s.silent = true
		since, looks = s.badSince, s.badLooks
	})
	if v == VerdictSilent {
		if s := m.recall(ofZone); !s.badSince.IsZero() && s.badSince.Before(since) {
			since, looks = s.badSince, looks+s.badLooks
		}
		return since, looks
	}
	m.note(ofZone, func(s *serverMemory) {
		switch {
		case !s.badSince.IsZero():
		case !since.IsZero():
			s.badSince, s.badLooks = since, looks // silent until now, and still of no use
		default:
			s.badSince = now
		}
		s.badLooks++
		since, looks = s.badSince, s.badLooks
	})
	return since, looks
}

// drop forgets what is known under a key.
func (m *memory) drop(key string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if el := m.servers[key]; el != nil {
		delete(m.servers, key)
		m.order.Remove(el)
	}
}

// heard notes that a name server has answered.
func (m *memory) heard() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.answered = time.Now()
}

// reaches reports whether a name server has answered lately.
func (m *memory) reaches() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return !m.answered.IsZero() && time.Since(m.answered) < reachesFor
}
