//go:build unix

package realdns

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/dnspersist/caddy-dnspersist/internal/lab"
)

// patience is how long a server may take to do what it is told.
const patience = 20 * time.Second

// clientPatience is how long a client waits for an answer: a resolver needs seconds to find
// out that a server is silent, and CAs let it.
const clientPatience = 10 * time.Second

// Server is one running name server.
type Server struct {
	// Port is where it listens on 127.0.0.1, over UDP and TCP.
	Port int
	// Dir holds its files.
	Dir string

	t      testing.TB
	cmd    *exec.Cmd
	exited chan struct{}
	out    *log
	paused bool
}

// log keeps what a server says.
type log struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// fixedPort is the port of the next server, if it was picked before.
var fixedPort int

// newServer picks a port that is free over UDP and TCP, and makes a directory.
func newServer(t testing.TB) *Server {
	t.Helper()
	if fixedPort != 0 {
		return &Server{t: t, Port: fixedPort, Dir: t.TempDir(), out: new(log)}
	}
	port, err := lab.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return &Server{t: t, Port: port, Dir: t.TempDir(), out: new(log)}
}

// Addr is where the server listens.
func (s *Server) Addr() string { return fmt.Sprintf("127.0.0.1:%d", s.Port) }

// Write puts a file into the server's directory and returns its path.
func (s *Server) Write(name, content string) string {
	s.t.Helper()
	path := filepath.Join(s.Dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return path
}

// start runs the server until the test ends, and waits until it answers for a zone of which
// it need not have the content.
func (s *Server) start(zone string, path string, args ...string) {
	s.t.Helper()
	s.cmd = exec.Command(path, args...)
	s.cmd.Dir, s.cmd.Stdout, s.cmd.Stderr = s.Dir, s.out, s.out
	if err := s.cmd.Start(); err != nil {
		s.t.Fatalf("starting %s: %v", path, err)
	}
	exited := make(chan struct{})
	s.exited = exited
	cmd := s.cmd
	go func() { defer close(exited); _ = cmd.Wait() }()
	s.t.Cleanup(s.Stop)
	Eventually(s.t, "an answer of "+filepath.Base(path), func() error {
		select {
		case <-exited:
			return fmt.Errorf("it has ended:\n%s", s.out)
		default:
		}
		_, err := s.Query(zone, dns.TypeSOA)
		return err
	})
}

// loaded waits until the server has the zones whose content it was given.
func (s *Server) loaded(zones []Zone) {
	s.t.Helper()
	for _, z := range zones {
		if z.Primary != nil {
			continue
		}
		Eventually(s.t, "the zone "+z.Origin, func() error {
			answer, err := s.Query(z.Origin, dns.TypeSOA)
			if err == nil && answer.Rcode != dns.RcodeSuccess {
				err = fmt.Errorf("%s\n%s", dns.RcodeToString[answer.Rcode], s.out)
			}
			return err
		})
	}
}

// Stop ends the server.
func (s *Server) Stop() {
	if s.cmd == nil {
		return
	}
	s.Resume()
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.exited:
	case <-time.After(patience):
		_ = s.cmd.Process.Kill()
		<-s.exited
	}
	s.cmd = nil
}

// Pause makes the server silent, Resume ends that.
func (s *Server) Pause() {
	s.paused = true
	_ = s.cmd.Process.Signal(syscall.SIGSTOP)
}

// Resume ends a Pause.
func (s *Server) Resume() {
	if s.paused {
		s.paused = false
		_ = s.cmd.Process.Signal(syscall.SIGCONT)
	}
}

// Query asks the server, as a client of a resolver would.
func (s *Server) Query(name string, qtype uint16) (*dns.Msg, error) {
	m := new(dns.Msg).SetQuestion(dns.Fqdn(name), qtype)
	client := &dns.Client{Net: "tcp", Timeout: clientPatience}
	answer, _, err := client.Exchange(m, s.Addr())
	return answer, err
}

// Values are the values of the TXT records at a name, sorted, and their TTL.
func (s *Server) Values(name string) (values []string, ttl uint32) {
	s.t.Helper()
	answer, err := s.Query(name, dns.TypeTXT)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, rr := range answer.Answer {
		txt, ok := rr.(*dns.TXT)
		if !ok {
			continue
		}
		// The strings in txt are escaped, those on the wire are not.
		wire := make([]byte, dns.Len(txt))
		end, err := dns.PackRR(txt, wire, 0, nil, false)
		if err != nil {
			s.t.Fatal(err)
		}
		_, data, err := dns.UnpackDomainName(wire, 0)
		if err != nil {
			s.t.Fatal(err)
		}
		value := ""
		for data += 10; data < end; data += 1 + int(wire[data]) { // after type, class, TTL and length
			value += string(wire[data+1 : data+1+int(wire[data])])
		}
		values, ttl = append(values, value), txt.Hdr.Ttl
	}
	slices.Sort(values)
	return values, ttl
}

// Run runs a tool and returns its output.
func (s *Server) Run(stdin, path string, args ...string) string {
	s.t.Helper()
	cmd := exec.Command(path, args...)
	cmd.Dir, cmd.Stdin = s.Dir, bytes.NewBufferString(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		s.t.Fatalf("%s %v: %v\n%s\n%s", path, args, err, out, s.out)
	}
	return string(out)
}

// Eventually waits until cond returns nil.
func Eventually(t testing.TB, what string, cond func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := cond()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s: %v", what, patience, err)
		}
		<-tick.C
	}
}
