package ask

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/miekg/dns"
)

func query(name string) *dns.Msg {
	return new(dns.Msg).SetQuestion(name, dns.TypeTXT)
}

// Cancelling interrupts a read that nobody answers.
func TestNetExchangerCancel(t *testing.T) {
	t.Parallel()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cancelled := func(network, addr string, asked func()) time.Duration {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		done := make(chan error)
		go func() {
			_, err := NetExchanger{UDPTimeout: time.Minute, TCPTimeout: time.Minute}.Exchange(ctx, network, addr, query("x.test."))
			done <- err
		}()
		asked()
		began := time.Now()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", network, err)
		}
		return time.Since(began)
	}
	for _, tt := range []struct {
		network, addr string
		asked         func()
	}{
		{"udp", pc.LocalAddr().String(), func() { pc.ReadFrom(make([]byte, 512)) }},
		{"tcp", l.Addr().String(), func() {
			if conn, err := l.Accept(); err == nil {
				conn.Read(make([]byte, 512))
				t.Cleanup(func() { conn.Close() })
			}
		}},
	} {
		best := time.Hour // the machine may be busy with something else
		for range 5 {
			best = min(best, cancelled(tt.network, tt.addr, tt.asked))
		}
		if best > 50*time.Millisecond {
			t.Errorf("%s: cancelling took %v", tt.network, best)
		}
	}
}

func TestNetExchangerTimeouts(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	began := time.Now()
	_, err = NetExchanger{TCPTimeout: 50 * time.Millisecond}.Exchange(t.Context(), "tcp", l.Addr().String(), query("x.test."))
	var netErr net.Error
	if !errors.As(err, &netErr) || !netErr.Timeout() {
		t.Errorf("error %v, want a time-out", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err = (NetExchanger{}).Exchange(ctx, "tcp", l.Addr().String(), query("x.test.")); err == nil {
		t.Error("no error")
	}
	if d := time.Since(began); d > time.Second {
		t.Errorf("took %v", d)
	}
}

func TestParseReply(t *testing.T) {
	t.Parallel()
	q := query("a.test.")
	reply := func(change func(*dns.Msg)) []byte {
		m := new(dns.Msg)
		m.SetReply(q)
		change(m)
		wire, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		return wire
	}
	none := func(*dns.Msg) {}
	tests := []struct {
		name string
		wire []byte
		ok   bool
		bad  bool
	}{
		{"reply", reply(none), true, false},
		{"other case", reply(func(m *dns.Msg) { m.Question[0].Name = "A.TEST." }), true, false},
		{"other id", reply(func(m *dns.Msg) { m.Id++ }), false, false},
		{"other opcode", reply(func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify }), false, false},
		{"query", reply(func(m *dns.Msg) { m.Response = false }), false, false},
		{"other name", reply(func(m *dns.Msg) { m.Question[0].Name = "b.test." }), false, false},
		{"other type", reply(func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeA }), false, false},
		{"no question", reply(func(m *dns.Msg) { m.Question = nil }), false, false},
		{"no question, error", reply(func(m *dns.Msg) { m.Question, m.Rcode = nil, dns.RcodeFormatError }), true, false},
		{"empty", nil, false, false},
		{"short", reply(none)[:11], false, false},
		{"cut", reply(none)[:15], false, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m, err := parseReply(tt.wire, q)
			if (m != nil) != tt.ok || errors.Is(err, ErrBadReply) != tt.bad {
				t.Errorf("got %v, %v", m, err)
			}
		})
	}
}

func FuzzParseReply(f *testing.F) {
	q := query("a.test.")
	q.Id = 1
	m := new(dns.Msg)
	m.SetReply(q)
	rr, _ := dns.NewRR(`a.test. TXT "a" "b\"\\\200"`)
	m.Answer = []dns.RR{rr}
	wire, _ := m.Pack()
	f.Add(wire)
	f.Fuzz(func(t *testing.T, wire []byte) {
		if m, err := parseReply(wire, q); m != nil && (err != nil || !repliesTo(m, q)) {
			t.Errorf("%v is taken for a reply (%v)", m, err)
		}
	})
}
