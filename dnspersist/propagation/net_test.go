package propagation

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation/internal/ask"
)

// Short enough for many silent servers, long enough for a loaded machine.
const (
	testUDPTimeout = 250 * time.Millisecond
	testTCPTimeout = 500 * time.Millisecond
)

// testNet is an Internet of name servers at virtual addresses, each a real
// server on a port of 127.0.0.1. Addresses without a server have no route.
type testNet struct {
	t *testing.T

	mu      sync.Mutex
	servers map[string]*testServer
	queries []string // "network addr qname qtype rd"

	txtAsked chan struct{} // closed at the first TXT question
}

func newTestNet(t *testing.T) *testNet {
	return &testNet{t: t, servers: make(map[string]*testServer), txtAsked: make(chan struct{})}
}

// Exchange implements Exchanger.
func (n *testNet) Exchange(ctx context.Context, network, addr string, query *dns.Msg) (*dns.Msg, error) {
	q := query.Question[0]
	n.mu.Lock()
	s := n.servers[addr]
	n.queries = append(n.queries, fmt.Sprintf("%s %s %s %s rd=%v", network, addr, q.Name, dns.TypeToString[q.Qtype], query.RecursionDesired))
	if q.Qtype == dns.TypeTXT {
		select {
		case <-n.txtAsked:
		default:
			close(n.txtAsked)
		}
	}
	n.mu.Unlock()
	if s == nil {
		return nil, errors.New("network is unreachable")
	}
	real := s.udp
	if network == "tcp" {
		real = s.tcp
	}
	return NetExchanger{UDPTimeout: testUDPTimeout, TCPTimeout: testTCPTimeout}.Exchange(ctx, network, real, query)
}

func (n *testNet) asked(parts ...string) (count int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, q := range n.queries {
		all := true
		for _, p := range parts {
			all = all && strings.Contains(q, p)
		}
		if all {
			count++
		}
	}
	return count
}

// testServer answers from zones, or misbehaves.
type testServer struct {
	udp, tcp string

	mu        sync.Mutex
	zones     map[string][]dns.RR
	recursive bool
	mode      string
}

// serve starts a server at the virtual address ip with zones.
func (n *testNet) serve(ip string, zones ...string) *testServer {
	n.t.Helper()
	s := &testServer{zones: make(map[string][]dns.RR)}
	for _, z := range zones {
		s.load(n.t, z)
	}
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		n.t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		n.t.Fatal(err)
	}
	s.udp, s.tcp = pc.LocalAddr().String(), l.Addr().String()
	for _, srv := range []*dns.Server{{PacketConn: pc, Handler: s}, {Listener: l, Handler: s}} {
		started := make(chan struct{})
		srv.NotifyStartedFunc = func() { close(started) }
		done := make(chan struct{})
		go func() { defer close(done); srv.ActivateAndServe() }()
		<-started
		n.t.Cleanup(func() { srv.Shutdown(); <-done })
	}
	n.mu.Lock()
	n.servers[net.JoinHostPort(ip, "53")] = s
	n.mu.Unlock()
	return s
}

// load replaces a zone: its text begins with the SOA record.
func (s *testServer) load(t *testing.T, text string) {
	t.Helper()
	var rrs []dns.RR
	zp := dns.NewZoneParser(strings.NewReader(text), ".", "")
	zp.SetDefaultTTL(300)
	for rr, ok := zp.Next(); ok; rr, ok = zp.Next() {
		rrs = append(rrs, rr)
	}
	if zp.Err() != nil {
		t.Fatal(zp.Err())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.zones[dns.CanonicalName(rrs[0].Header().Name)] = rrs
}

// forget takes a zone away.
func (s *testServer) forget(zone string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.zones, zone)
}

func (s *testServer) set(mode string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mode = mode
}

// recurses makes s a resolver that knows its zones.
func (s *testServer) recurses() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.recursive = true
}

// ServeDNS implements dns.Handler.
func (s *testServer) ServeDNS(w dns.ResponseWriter, r *dns.Msg) {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := r.Question[0]
	m := new(dns.Msg)
	m.SetReply(r)
	s.answer(m, q)
	overUDP := w.RemoteAddr().Network() == "udp"

	switch mode := s.mode; mode {
	case "silent":
		return
	case "silent-udp":
		if overUDP {
			return
		}
	case "servfail":
		m = new(dns.Msg)
		m.SetRcode(r, dns.RcodeServerFailure)
	case "refused":
		m = new(dns.Msg)
		m.SetRcode(r, dns.RcodeRefused)
		m.SetEdns0(ask.UDPSize, false)
		m.IsEdns0().Option = append(m.IsEdns0().Option, &dns.EDNS0_EDE{InfoCode: dns.ExtendedErrorCodeNotAuthoritative})
	case "underscore-fails":
		if strings.Contains(q.Name, "_") {
			m = new(dns.Msg)
			m.SetRcode(r, dns.RcodeServerFailure)
		}
	case "no-authority":
		m.Ns = nil
	case "bogus": // a validating resolver
		if q.Qtype == dns.TypeTXT && !r.CheckingDisabled {
			m = new(dns.Msg)
			m.SetRcode(r, dns.RcodeServerFailure)
			m.SetEdns0(ask.UDPSize, true)
			m.IsEdns0().Option = append(m.IsEdns0().Option, &dns.EDNS0_EDE{InfoCode: dns.ExtendedErrorCodeDNSBogus})
		}
	case "txt-servfail":
		if q.Qtype == dns.TypeTXT {
			m = new(dns.Msg)
			m.SetRcode(r, dns.RcodeServerFailure)
		}
	case "formerr-edns":
		if r.IsEdns0() != nil {
			m = new(dns.Msg)
			m.SetRcode(r, dns.RcodeFormatError)
			m.Question = nil
		}
	case "nodata":
		m.Answer, m.Ns = nil, []dns.RR{s.soa(q.Name)}
	case "odd-soa": // as load balancers make them up
		if q.Qtype == dns.TypeTXT {
			for _, rr := range m.Ns {
				rr.Header().Name = q.Name
			}
		}
	case "resolver": // an interceptor
		m.Authoritative, m.RecursionAvailable = false, true
	case "recurses-too": // authoritative, and a resolver for us
		m.RecursionAvailable = true
	case "no-aa":
		m.Authoritative = false
	case "empty-no-aa":
		m.Authoritative, m.Answer, m.Ns = false, nil, nil
	case "upward":
		m.Authoritative, m.Answer = false, nil
		ns, _ := dns.NewRR(". 300 NS a.root.test.")
		m.Ns = []dns.RR{ns}
	case "tc", "tc-only":
		if overUDP {
			m.Truncated, m.Answer = true, nil
		} else if mode == "tc-only" {
			w.Close()
			return
		}
	case "other-case":
		for _, rr := range m.Answer {
			rr.Header().Name = strings.ToUpper(rr.Header().Name)
		}
		m.Question[0].Name = strings.ToUpper(q.Name)
	case "liars-first":
		if overUDP {
			s.lie(w, r, m)
		}
	case "unparsable":
		if overUDP {
			wire, _ := m.Pack()
			w.Write(wire[:len(wire)-3])
			return
		}
	}
	w.WriteMsg(m)
}

// lie sends datagrams that do not answer r: garbage, another id, the query
// itself, another question, no question.
func (s *testServer) lie(w dns.ResponseWriter, r, m *dns.Msg) {
	no := m.Copy()
	no.Answer, no.Rcode = nil, dns.RcodeNameError
	w.Write([]byte("garbage"))
	otherID := no.Copy()
	otherID.Id++
	w.WriteMsg(otherID)
	wire, _ := otherID.Pack()
	binary.BigEndian.PutUint16(wire, otherID.Id)
	w.Write(append(wire, 1, 2, 3))
	echo := r.Copy()
	w.WriteMsg(echo)
	otherName := no.Copy()
	otherName.Question[0].Name = "other.test."
	w.WriteMsg(otherName)
	noQuestion := no.Copy()
	noQuestion.Question = nil
	w.WriteMsg(noQuestion)
}
