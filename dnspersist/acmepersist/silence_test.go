package acmepersist

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// silencer relays connections. Once silent, those that are open swallow all and close nothing,
// as behind a balancer that has failed; new ones work.
type silencer struct {
	net.Listener
	to       string
	accepted atomic.Int32
	silent   atomic.Int32 // how many of the accepted are
}

func newSilencer(t *testing.T, to string) *silencer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &silencer{Listener: l, to: to}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			number := s.accepted.Add(1)
			up, err := net.Dial("tcp", to)
			if err != nil {
				conn.Close()
				return
			}
			t.Cleanup(func() { conn.Close(); up.Close() })
			go s.relay(number, conn, up)
			go s.relay(number, up, conn)
		}
	}()
	return s
}

func (s *silencer) relay(number int32, to io.Writer, from io.Reader) {
	buffer := make([]byte, 4096)
	for {
		n, err := from.Read(buffer)
		if err != nil {
			return
		}
		if number > s.silent.Load() {
			_, _ = to.Write(buffer[:n])
		}
	}
}

// A connection to the CA that goes silent under HTTP/2 is given up, and another one is made.
func TestSilentConnectionIsGivenUp(t *testing.T) {
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Proto) }))
	srv.EnableHTTP2 = true
	srv.StartTLS()
	defer srv.Close()
	relay := newSilencer(t, srv.Listener.Addr().String())

	transport := NewTransport()
	defer transport.CloseIdleConnections()
	if transport.HTTP2 == nil || transport.HTTP2.SendPingTimeout <= 0 || transport.HTTP2.SendPingTimeout+transport.HTTP2.PingTimeout > 40*time.Second {
		t.Fatalf("the connection's health is not looked at in time: %+v", transport.HTTP2)
	}
	transport.HTTP2.SendPingTimeout, transport.HTTP2.PingTimeout = 200*time.Millisecond, 200*time.Millisecond
	roots := x509.NewCertPool()
	roots.AddCert(srv.Certificate())
	transport.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}

	get := func() (string, error) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+relay.Addr().String(), strings.NewReader("x"))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := transport.RoundTrip(req)
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		return string(body), err
	}
	if proto, err := get(); err != nil || proto != "HTTP/2.0" {
		t.Fatalf("the first answer is %q, %v", proto, err)
	}
	relay.silent.Store(relay.accepted.Load())
	start := time.Now()
	for {
		_, err := get()
		if err == nil {
			break
		}
		if time.Since(start) > 10*time.Second {
			t.Fatalf("no answer in 10 s, %d connections were made: %v", relay.accepted.Load(), err)
		}
	}
	t.Logf("an answer after %s", time.Since(start))
}
