package ask

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// Exchanger sends one query to one address and returns the answer that
// belongs to it. [NetExchanger] uses real sockets; tests put their own here.
type Exchanger interface {
	// Exchange sends query over network, "udp" or "tcp", to addr, an
	// "ip:port" (a resolver may also be given as "host:port"). It must not
	// change query and returns soon after ctx is done. An error that wraps
	// [ErrBadReply] means that a reply came and could not be used; any other
	// error that none came.
	Exchange(ctx context.Context, network, addr string, query *dns.Msg) (*dns.Msg, error)
}

// ErrBadReply is wrapped by errors of an [Exchanger] that received a reply to
// the query and could not use it. Such a server is broken, not silent.
var ErrBadReply = errors.New("bad reply")

// Timeouts of one try of [NetExchanger].
const (
	DefaultUDPTimeout = 2 * time.Second
	DefaultTCPTimeout = 3 * time.Second
)

// UDPSize is the EDNS buffer size that is announced: what fits into one
// unfragmented datagram (DNS flag day 2020).
const UDPSize = 1232

// longAgo is a deadline that makes a blocked read or write return at once.
var longAgo = time.Unix(1, 0)

// NetExchanger is the [Exchanger] that uses real sockets: one connected
// socket for each try, so that the source port is random and a closed port is
// noticed at once.
//
// It does itself what miekg/dns leaves to its callers: the reply must carry
// the id of the query, must be a reply, and must repeat the question;
// datagrams that do not are ignored until the time is up; and a read is
// interrupted when the context ends.
type NetExchanger struct {
	// UDPTimeout and TCPTimeout limit one exchange, connecting included.
	// Defaults: DefaultUDPTimeout, DefaultTCPTimeout.
	UDPTimeout, TCPTimeout time.Duration
}

// Exchange implements [Exchanger].
func (e NetExchanger) Exchange(ctx context.Context, network, addr string, query *dns.Msg) (*dns.Msg, error) {
	wire, err := query.Pack()
	if err != nil {
		return nil, fmt.Errorf("packing query for %s: %w", addr, err)
	}
	timeout := cmp.Or(e.UDPTimeout, DefaultUDPTimeout)
	if network == "tcp" {
		timeout = cmp.Or(e.TCPTimeout, DefaultTCPTimeout)
	}
	deadline := time.Now().Add(timeout)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}

	dialer := net.Dialer{Deadline: deadline}
	conn, err := dialer.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(deadline); err != nil {
		return nil, err
	}
	// A read knows only deadlines, so the end of ctx becomes one.
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(longAgo) })
	defer stop()

	var resp *dns.Msg
	if network == "tcp" {
		resp, err = exchangeTCP(conn, wire, query)
	} else {
		resp, err = exchangeUDP(conn, wire, query)
	}
	if err != nil && ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return resp, err
}

// maxDatagram is the most that one has.
const maxDatagram = 64 << 10

// datagrams are buffers to read one into: what comes is small, and 64 KiB for each question were half of all memory that a
// certificate took.
var datagrams = sync.Pool{New: func() any { return new([maxDatagram]byte) }}

func exchangeUDP(conn net.Conn, wire []byte, query *dns.Msg) (*dns.Msg, error) {
	if _, err := conn.Write(wire); err != nil {
		return nil, err
	}
	buf := datagrams.Get().(*[maxDatagram]byte)
	defer datagrams.Put(buf)
	for {
		n, err := conn.Read(buf[:])
		if err != nil {
			return nil, err
		}
		resp, err := parseReply(bytes.Clone(buf[:n]), query)
		if err != nil || resp != nil {
			return resp, err
		}
	}
}

func exchangeTCP(conn net.Conn, wire []byte, query *dns.Msg) (*dns.Msg, error) {
	framed := binary.BigEndian.AppendUint16(make([]byte, 0, len(wire)+2), uint16(len(wire)))
	if _, err := conn.Write(append(framed, wire...)); err != nil {
		return nil, err
	}
	for {
		var size [2]byte
		if _, err := io.ReadFull(conn, size[:]); err != nil {
			return nil, err
		}
		buf := make([]byte, binary.BigEndian.Uint16(size[:]))
		if _, err := io.ReadFull(conn, buf); err != nil {
			return nil, err
		}
		resp, err := parseReply(buf, query)
		if err != nil || resp != nil {
			return resp, err
		}
	}
}

// parseReply returns nil and no error if wire is not a reply to query and is
// to be ignored, for anybody can send a datagram.
func parseReply(wire []byte, query *dns.Msg) (*dns.Msg, error) {
	const header, qr = 12, 0x80
	if len(wire) < header || binary.BigEndian.Uint16(wire) != query.Id || wire[2]&qr == 0 {
		return nil, nil
	}
	resp := new(dns.Msg)
	if err := resp.Unpack(wire); err != nil {
		// An oversized reply was cut somewhere on its way, perhaps; TCP shows.
		return nil, fmt.Errorf("%w: %w", ErrBadReply, err)
	}
	if !repliesTo(resp, query) {
		return nil, nil
	}
	return resp, nil
}

// repliesTo reports whether resp repeats the question of query. A server that
// could not read the question need not repeat it.
func repliesTo(resp, query *dns.Msg) bool {
	if resp.Id != query.Id || !resp.Response || resp.Opcode != query.Opcode {
		return false
	}
	if len(resp.Question) == 0 {
		return resp.Rcode != dns.RcodeSuccess && resp.Rcode != dns.RcodeNameError
	}
	if len(resp.Question) != 1 || len(query.Question) != 1 {
		return false
	}
	got, want := resp.Question[0], query.Question[0]
	return got.Qtype == want.Qtype && got.Qclass == want.Qclass && strings.EqualFold(got.Name, want.Name)
}
