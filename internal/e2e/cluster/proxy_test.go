//go:build long && unix

package cluster

import (
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// proxy is the network between one node and Redis.
type proxy struct {
	address string
	target  string
	mu      sync.Mutex
	delay   time.Duration
	// passing is closed while the network is whole.
	passing chan struct{}
	conns   map[net.Conn]bool
	closed  bool
	wg      sync.WaitGroup
}

// startProxy starts a proxy to a Unix socket. It ends with the test.
func startProxy(t testing.TB, target string) *proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // a test
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{address: listener.Addr().String(), target: target, passing: make(chan struct{}), conns: make(map[net.Conn]bool)}
	close(p.passing)
	p.wg.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			p.wg.Go(func() { p.serve(conn) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		p.mend()
		p.mu.Lock()
		p.closed = true
		for conn := range p.conns {
			_ = conn.Close()
		}
		p.mu.Unlock()
		p.wg.Wait()
	})
	return p
}

// slow makes each command take longer.
func (p *proxy) slow(delay time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = delay
}

// cut lets nothing through any more, and closes nothing: packets that are lost.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.passing = make(chan struct{})
}

// mend ends a cut.
func (p *proxy) mend() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.passing:
	default:
		close(p.passing)
	}
}

// pass waits until the network is whole, and returns how long what is sent now is under way.
func (p *proxy) pass() time.Duration {
	p.mu.Lock()
	passing := p.passing
	p.mu.Unlock()
	<-passing
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.delay
}

// keep notes a connection that is closed at the end of the test; false after that.
func (p *proxy) keep(conn net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns[conn] = true
	return !p.closed
}

func (p *proxy) serve(client net.Conn) {
	defer client.Close()
	if !p.keep(client) {
		return
	}
	p.pass()
	redis, err := net.Dial("unix", p.target) //nolint:noctx // a test
	if err != nil {
		return
	}
	defer redis.Close()
	if !p.keep(redis) {
		return
	}
	ended := make(chan struct{}, 2)
	for _, way := range [][2]net.Conn{{client, redis}, {redis, client}} {
		p.wg.Go(func() {
			p.carry(way[1], way[0], way[0] == client)
			ended <- struct{}{}
		})
	}
	<-ended
}

// carry copies what is sent in one direction. A client sends a command after the answer to the one
// before, so a wait before each is the latency of commands.
func (p *proxy) carry(to io.Writer, from io.Reader, delayed bool) {
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		if err != nil {
			return
		}
		if delay := p.pass(); delayed && delay > 0 {
			timer := time.NewTimer(delay)
			<-timer.C
		}
		if _, err := to.Write(buffer[:n]); err != nil {
			return
		}
	}
}
