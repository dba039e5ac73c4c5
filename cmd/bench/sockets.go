package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// answerer makes a server's answer; nil is silence. If pause is not zero, its octets come one
// after another with such pauses, over TCP.
type answerer func(query *dns.Msg, tcp bool) (wire []byte, pause time.Duration)

// honest answers as a name server of all zones, or as a resolver.
func (w *world) honest(asResolver bool) answerer {
	return func(query *dns.Msg, _ bool) ([]byte, time.Duration) {
		q := query.Question[0]
		reply := new(dns.Msg).SetReply(query)
		reply.Authoritative, reply.RecursionAvailable = !asResolver, asResolver
		w.answer(reply, dns.CanonicalName(q.Name), q.Qtype)
		return packed(reply), 0
	}
}

// hostileKinds are the ways of servers to hold up who asks them.
var hostileKinds = []string{"TCP that drips", "60 KB of text", "silence", "wrong ids"}

// hostileAnswer returns how a server of a kind answers.
func hostileAnswer(kind string) answerer {
	return func(query *dns.Msg, tcp bool) ([]byte, time.Duration) {
		reply := new(dns.Msg).SetReply(query)
		reply.Authoritative = true
		switch kind {
		case "silence":
			return nil, 0
		case "wrong ids":
			reply.Id++
		case "TCP that drips", "60 KB of text":
			reply.Truncated = !tcp
		}
		switch {
		case tcp && kind == "TCP that drips":
			return packed(reply), time.Second
		case tcp && kind == "60 KB of text":
			for i := range 60 {
				reply.Answer = append(reply.Answer, &dns.TXT{
					Hdr: dns.RR_Header{Name: query.Question[0].Name, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: 60},
					Txt: []string{fmt.Sprintf("%0250d", i), strings.Repeat("x", 250), strings.Repeat("y", 250), strings.Repeat("z", 250)},
				})
			}
		}
		return packed(reply), 0
	}
}

func packed(m *dns.Msg) []byte {
	m.Compress = true
	wire, err := m.Pack()
	if err != nil {
		panic(err)
	}
	return wire
}

// socket is a name server on one port of loopback, over UDP and TCP.
type socket struct {
	addr   string
	answer answerer
	asked  atomic.Int64

	udp    net.PacketConn
	tcp    net.Listener
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

func newSocket(a answerer) (*socket, error) {
	var errs []error
	for range 50 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		p, err := net.ListenPacket("udp", l.Addr().String())
		if err != nil {
			l.Close()
			errs = append(errs, err)
			continue
		}
		s := &socket{addr: l.Addr().String(), answer: a, udp: p, tcp: l}
		s.ctx, s.cancel = context.WithCancel(context.Background())
		s.wg.Go(s.datagrams)
		s.wg.Go(s.connections)
		return s, nil
	}
	return nil, fmt.Errorf("no port for both UDP and TCP: %w", errors.Join(errs...))
}

func (s *socket) close() {
	s.cancel()
	s.udp.Close()
	s.tcp.Close()
	s.wg.Wait()
}

// reply is the answer to a question in wire form.
func (s *socket) reply(wire []byte, tcp bool) ([]byte, time.Duration) {
	query := new(dns.Msg)
	if query.Unpack(wire) != nil || len(query.Question) != 1 {
		return nil, 0
	}
	s.asked.Add(1)
	return s.answer(query, tcp)
}

func (s *socket) datagrams() {
	buf := make([]byte, 4096)
	for {
		n, from, err := s.udp.ReadFrom(buf)
		if err != nil {
			return
		}
		if wire, _ := s.reply(buf[:n], false); wire != nil {
			_, _ = s.udp.WriteTo(wire, from)
		}
	}
}

func (s *socket) connections() {
	for {
		conn, err := s.tcp.Accept()
		if err != nil {
			return
		}
		s.wg.Go(func() {
			stop := context.AfterFunc(s.ctx, func() { conn.Close() })
			defer stop()
			defer conn.Close()
			s.converse(conn)
		})
	}
}

// converse answers until the other side has enough.
func (s *socket) converse(conn net.Conn) {
	for {
		var size [2]byte
		if _, err := io.ReadFull(conn, size[:]); err != nil {
			return
		}
		query := make([]byte, binary.BigEndian.Uint16(size[:]))
		if _, err := io.ReadFull(conn, query); err != nil {
			return
		}
		wire, pause := s.reply(query, true)
		if wire == nil {
			continue
		}
		framed := append(binary.BigEndian.AppendUint16(nil, uint16(len(wire))), wire...)
		step := len(framed)
		if pause > 0 {
			step = 1
		}
		for len(framed) > 0 {
			if _, err := conn.Write(framed[:step]); err != nil {
				return
			}
			framed = framed[step:]
			select {
			case <-time.After(pause):
			case <-s.ctx.Done():
				return
			}
		}
	}
}
