// Package lab is a test lab inside one process: a certification authority
// ([CA], which is Pebble behind a handler that records, delays and breaks its
// answers, and with a resolver of its own, so that it speaks other drafts than
// Pebble does) and name servers ([DNS]). It needs no root, no network and no
// testing.T.
package lab

import (
	"fmt"
	"net"
)

// FreePort returns a TCP port of 127.0.0.1 that was free a moment ago.
func FreePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("finding a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
