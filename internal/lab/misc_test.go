package lab

import (
	"fmt"
	"net"
	"testing"
)

// A port that was picked is free, and no other process picks it.
func TestFreePort(t *testing.T) {
	port, err := FreePort()
	if err != nil {
		t.Fatal(err)
	}
	if err := isFree(port); err != nil {
		t.Errorf("port %d is not free: %v", port, err)
	}
	l, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Skip("this system has no other loopback address")
	}
	l.Close()
	if claim, err := claimPort(port); err == nil {
		claim.Close()
		t.Errorf("port %d could be claimed again", port)
	}
	if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err != nil {
		t.Errorf("nobody can listen at port %d: %v", port, err)
	} else {
		l.Close()
	}
}
