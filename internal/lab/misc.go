// Package lab is a test lab inside one process: a certification authority
// ([CA], which is Pebble behind a handler that records, delays and breaks its
// answers, and with a resolver of its own, so that it speaks other drafts than
// Pebble does) and name servers ([DNS]). It needs no root, no network and no
// testing.T.
package lab

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"syscall"
)

// Ports that systems do not give to outgoing connections: what they have given away by the
// time that somebody listens would else be taken, or shared with another Caddy, which sets
// SO_REUSEPORT.
const firstPort, ports = 10000, 20000

// picked are the ports of this process, each with what keeps other processes of tests from
// picking it too.
var picked sync.Map

// FreePort returns a port of 127.0.0.1 that was free a moment ago over TCP and UDP, each one
// once as long as the process lives, also where several call it at the same time.
func FreePort() (int, error) {
	var last error
	for range 200 {
		port := firstPort + rand.N(ports)
		if _, taken := picked.LoadOrStore(port, nil); taken {
			continue
		}
		var claim net.Listener
		if claim, last = claimPort(port); last != nil {
			continue
		}
		if last = isFree(port); last == nil {
			picked.Store(port, claim)
			return port, nil
		}
		if claim != nil {
			claim.Close()
		}
	}
	return 0, fmt.Errorf("finding a free port: %w", last)
}

// claimPort tells other processes that a port is taken, by listening at another loopback
// address, where the system has it.
func claimPort(port int) (net.Listener, error) {
	claim, err := net.Listen("tcp", fmt.Sprintf("127.0.0.2:%d", port))
	if err == nil || errors.Is(err, syscall.EADDRINUSE) {
		return claim, err
	}
	return nil, nil
}

func isFree(port int) error {
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	defer l.Close()
	p, err := net.ListenPacket("udp", addr)
	if err != nil {
		return err
	}
	return p.Close()
}
