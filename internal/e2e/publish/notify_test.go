//go:build unix

package publish

import (
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/dnspersist/caddy-dnspersist/internal/realdns"
)

// relay carries NOTIFY messages (RFC 1996) from a primary to a secondary, late. BIND sends them
// over UDP, Knot over TCP.
type relay struct {
	port    int
	lag     time.Duration
	to      atomic.Pointer[string]
	carried atomic.Int32
}

func newRelay(t *testing.T, lag time.Duration) *relay {
	t.Helper()
	r := &relay{lag: lag}
	for range 50 {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		packets, err := net.ListenPacket("udp", listener.Addr().String())
		if err != nil {
			listener.Close()
			continue
		}
		r.port = listener.Addr().(*net.TCPAddr).Port
		for _, s := range []*dns.Server{{Listener: listener, Handler: r}, {PacketConn: packets, Handler: r}} {
			s.MsgAcceptFunc = func(dns.Header) dns.MsgAcceptAction { return dns.MsgAccept }
			started := make(chan struct{})
			s.NotifyStartedFunc = func() { close(started) }
			go func() { _ = s.ActivateAndServe() }()
			<-started
			t.Cleanup(func() { _ = s.Shutdown() })
		}
		return r
	}
	t.Fatal("no port is free over UDP and TCP")
	return nil
}

// ServeDNS answers for the secondary, and tells it later.
func (r *relay) ServeDNS(w dns.ResponseWriter, m *dns.Msg) {
	_ = w.WriteMsg(new(dns.Msg).SetReply(m))
	to := r.to.Load()
	if m.Opcode != dns.OpcodeNotify || to == nil {
		return // the secondary is not there yet, and transfers the zone when it starts
	}
	time.AfterFunc(r.lag, func() {
		if answer, err := dns.Exchange(m, *to); err == nil && answer.Rcode == dns.RcodeSuccess {
			r.carried.Add(1)
		}
	})
}

// server is the relay as a primary sees it.
func (r *relay) server() *realdns.Server { return &realdns.Server{Port: r.port} }

// leadsTo says where the messages go from now on.
func (r *relay) leadsTo(s *realdns.Server) {
	addr := s.Addr()
	r.to.Store(&addr)
}
