// Package lab is a test lab inside one process: a certification authority
// ([CA], which is Pebble behind a handler that records, delays and breaks its
// answers, and with a resolver of its own, so that it speaks other drafts than
// Pebble does) and name servers ([DNS]). It needs no root, no network and no
// testing.T.
package lab

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
)

// Ports that systems do not give to outgoing connections: what they have given away by the
// time that somebody listens would else be taken, or shared with another Caddy, which sets
// SO_REUSEPORT.
const firstPort, ports = 10000, 20000

// picked are the ports of this process.
var picked sync.Map

// FreePort returns a port of 127.0.0.1 that was free a moment ago over TCP and UDP, each one
// once in a process.
func FreePort() (int, error) {
	var last error
	for range 200 {
		port := firstPort + rand.N(ports)
		if _, taken := picked.LoadOrStore(port, true); taken {
			continue
		}
		if last = isFree(port); last == nil {
			return port, nil
		}
	}
	return 0, fmt.Errorf("finding a free port: %w", last)
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
