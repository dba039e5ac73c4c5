package propagation

import (
	"container/list"
	"net/netip"
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
	// minRTTWait and rttFactor bound how long an answer is waited for over UDP where it is
	// known how long one takes.
	minRTTWait = 400 * time.Millisecond
	rttFactor  = 4
	// ipv6DownFor is how long IPv6 is not tried after all of it failed.
	ipv6DownFor = 10 * time.Minute
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
}

// memory remembers servers for all Checkers that use the same exchanger, so that one that
// is silent for ever does not cost its time-outs again at every look, nor its grace at
// every renewal.
type memory struct {
	mu       sync.Mutex
	servers  map[string]*list.Element
	order    list.List // of *serverMemory, the latest noted first
	ipv6Down time.Time // until when IPv6 is not tried
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
		m = &memory{servers: make(map[string]*list.Element)}
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

// judged notes the verdict on a server and returns since when it has been bad, and for how
// many looks.
func (m *memory) judged(addr string, v Verdict) (since time.Time, looks int) {
	m.note(addr, func(s *serverMemory) {
		if v != VerdictBroken && v != VerdictSilent {
			s.badSince, s.badLooks, s.silent = time.Time{}, 0, false
			return
		}
		if s.badSince.IsZero() {
			s.badSince = time.Now()
		}
		s.badLooks++
		s.silent = v == VerdictSilent
		since, looks = s.badSince, s.badLooks
	})
	return since, looks
}

// ipv6IsDown reports whether IPv6 is not to be tried.
func (m *memory) ipv6IsDown() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return time.Now().Before(m.ipv6Down)
}

// noteFamilies marks IPv6 as down here if none of several servers answered over it while
// one did over IPv4: then it is this machine that has none.
func (m *memory) noteFamilies(servers []server, outcomes []outcome) {
	var four, six bool
	sixTried := 0
	for i, s := range servers {
		if !s.addr.IsValid() {
			continue
		}
		answered := outcomes[i].Verdict != VerdictSilent
		if s.addr.Is4() {
			four = four || answered
		} else {
			sixTried++
			six = six || answered
		}
	}
	if sixTried > 1 && !six && four {
		m.mu.Lock()
		m.ipv6Down = time.Now().Add(ipv6DownFor)
		m.mu.Unlock()
	}
}

// withoutIPv6 leaves out the IPv6 addresses of hosts that have an IPv4 one.
func withoutIPv6(servers []server) []server {
	four := make(map[string]bool)
	for _, s := range servers {
		if s.addr.Is4() {
			four[s.host] = true
		}
	}
	var rest []server
	for _, s := range servers {
		if !isIPv6(s.addr) || !four[s.host] {
			rest = append(rest, s)
		}
	}
	return rest
}

func isIPv6(ip netip.Addr) bool { return ip.IsValid() && !ip.Is4() }
