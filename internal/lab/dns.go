package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/miekg/dns"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
)

// HostZone is the zone of the name servers' hosts, ns1.lab.test and so on. All
// servers have it.
const HostZone = "lab.test."

const (
	recordTTL   = 60
	negativeTTL = 60
	maxChain    = 10
)

// Query is one query that a server received.
type Query struct {
	Time    time.Time
	Server  int // 0 is the recursive server
	Name    string
	Type    string
	Network string // "udp" or "tcp"
}

// DNS is a set of authoritative name servers, numbered from 1, and one
// recursive server, number 0. Its methods may be called at any time.
type DNS struct {
	done    chan struct{}
	once    sync.Once
	wg      sync.WaitGroup
	servers []*nameServer // [0] is the recursive one

	turnsMu sync.Mutex // with mu held for reading
	mu      sync.RWMutex
	zones   map[string]*zone
	pick    string
	turns   map[string]int // of "rotate", by name and type
	queries []Query
}

// nameServer is one listening server; mode and delay are guarded by DNS.mu.
type nameServer struct {
	number int
	addr   string
	udp    *dns.Server
	tcp    *dns.Server
	mode   string
	delay  time.Duration
}

// NewDNS starts that many authoritative servers and the recursive one.
func NewDNS(servers int) (*DNS, error) {
	if servers < 1 || servers > 250 {
		return nil, fmt.Errorf("%d is not a number of name servers", servers)
	}
	d := &DNS{done: make(chan struct{}), zones: make(map[string]*zone), pick: "random"}
	for i := 0; i <= servers; i++ {
		s, err := d.listen(i)
		if err != nil {
			d.Close()
			return nil, err
		}
		d.servers = append(d.servers, s)
	}
	d.AddZone(HostZone)
	for i := 1; i <= servers; i++ {
		d.SetRR(0, fmt.Sprintf("%s A %s", d.Host(i), d.Address(i)))
	}
	return d, nil
}

// Close stops all servers.
func (d *DNS) Close() {
	d.once.Do(func() {
		close(d.done)
		for _, s := range d.servers {
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
			s.udp.ShutdownContext(ctx)
			s.tcp.ShutdownContext(ctx)
			cancel()
		}
		d.wg.Wait()
	})
}

// Resolver is the address of the recursive server, "127.0.0.1:port".
func (d *DNS) Resolver() string { return d.servers[0].addr }

// Servers is the number of authoritative servers.
func (d *DNS) Servers() int { return len(d.servers) - 1 }

// Host is the host name of a server, "ns1.lab.test.".
func (d *DNS) Host(server int) string { return fmt.Sprintf("ns%d.%s", server, HostZone) }

// Address is the virtual address of a server, "192.0.2.1".
func (d *DNS) Address(server int) string { return fmt.Sprintf("192.0.2.%d", server) }

// RealAddr is where a server really listens, "127.0.0.1:port".
func (d *DNS) RealAddr(server int) string { return d.servers[server].addr }

// Queries returns what was asked since the start.
func (d *DNS) Queries() []Query {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return slices.Clone(d.queries)
}

// SetMode says how a server (0: the recursive one) behaves: "normal", "silent",
// "servfail", "refused", "lame" (empty, without AA), "tcponly" (silent over
// UDP) or "truncate" (TC over UDP).
func (d *DNS) SetMode(server int, mode string) {
	switch mode {
	case "normal", "silent", "servfail", "refused", "lame", "tcponly", "truncate":
	default:
		panic("lab: no such mode: " + mode)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.servers[server].mode = mode
}

// SetDelay makes a server (0: the recursive one) answer that much later.
func (d *DNS) SetDelay(server int, delay time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.servers[server].delay = delay
}

// SetPick says which server of a zone the recursive one asks: "random",
// "first", "last", "rotate", each in its turn for a name and type, or "worst", the
// one with the fewest records in its answer.
func (d *DNS) SetPick(pick string) {
	switch pick {
	case "random", "first", "last", "rotate", "worst":
	default:
		panic("lab: no such pick: " + pick)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.pick, d.turns = pick, make(map[string]int)
}

// Exchanger leads the virtual addresses of the servers, port 53, to where they
// really listen.
func (d *DNS) Exchanger() propagation.Exchanger { return exchanger{dns: d} }

type exchanger struct {
	dns *DNS
	net propagation.NetExchanger
}

func (e exchanger) Exchange(ctx context.Context, network, addr string, query *dns.Msg) (*dns.Msg, error) {
	for i := 1; i <= e.dns.Servers(); i++ {
		if addr == e.dns.Address(i)+":53" {
			addr = e.dns.RealAddr(i)
			break
		}
	}
	return e.net.Exchange(ctx, network, addr, query)
}

// listen starts a server on one port for both UDP and TCP.
func (d *DNS) listen(number int) (*nameServer, error) {
	var errs []error
	for range 50 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("name server %d: %w", number, err)
		}
		p, err := net.ListenPacket("udp", l.Addr().String())
		if err != nil {
			l.Close()
			errs = append(errs, err)
			continue
		}
		s := &nameServer{number: number, addr: l.Addr().String(), mode: "normal"}
		started := make(chan struct{}, 2)
		handler := func(network string) dns.Handler {
			return dns.HandlerFunc(func(w dns.ResponseWriter, query *dns.Msg) { d.serve(s, network, w, query) })
		}
		s.tcp = &dns.Server{Listener: l, Handler: handler("tcp"), NotifyStartedFunc: func() { started <- struct{}{} }}
		s.udp = &dns.Server{PacketConn: p, UDPSize: 4096, Handler: handler("udp"), NotifyStartedFunc: func() { started <- struct{}{} }}
		for _, server := range []*dns.Server{s.tcp, s.udp} {
			d.wg.Go(func() { server.ActivateAndServe() })
		}
		<-started
		<-started
		return s, nil
	}
	return nil, fmt.Errorf("name server %d: no port for both UDP and TCP: %w", number, errors.Join(errs...))
}
