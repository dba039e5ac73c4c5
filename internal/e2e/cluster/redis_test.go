//go:build long && unix

package cluster

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/dnspersist/caddy-dnspersist/internal/e2e/harness"
	"github.com/dnspersist/caddy-dnspersist/internal/realdns"
)

// server is a Redis with a directory and a socket of its own. It is reached through proxies only.
type server struct {
	t       testing.TB
	program string
	dir     string
	cmd     *exec.Cmd
	// client is for a look inside.
	client *redis.Client
}

// startRedis starts a Redis that keeps nothing on disk. It ends with the test.
func startRedis(t testing.TB) *server {
	t.Helper()
	s := &server{t: t, program: realdns.Program(t, "redis-server", "redis-server"), dir: t.TempDir()}
	s.client = redis.NewClient(&redis.Options{Network: "unix", Addr: s.socket()})
	t.Cleanup(func() { _ = s.client.Close() })
	t.Cleanup(s.kill)
	s.start()
	return s
}

func (s *server) socket() string { return filepath.Join(s.dir, "redis.sock") }

func (s *server) start() {
	s.t.Helper()
	var out bytes.Buffer // read after Wait
	s.cmd = exec.CommandContext(s.t.Context(), s.program, "--port", "0", "--unixsocket", s.socket(), "--dir", s.dir, "--save", "", "--appendonly", "no")
	s.cmd.Stdout, s.cmd.Stderr = &out, &out
	s.cmd.WaitDelay = 10 * time.Second
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	if err := harness.Eventually(harness.Soon, func() error { return s.client.Ping(s.t.Context()).Err() }); err != nil {
		s.kill()
		s.t.Fatalf("redis-server does not answer: %v\n%s", err, &out)
	}
}

// kill ends the server at once. Nothing that it had is left.
func (s *server) kill() {
	if s.cmd != nil {
		_ = s.cmd.Process.Signal(syscall.SIGKILL)
		_ = s.cmd.Wait()
		s.cmd = nil
	}
}

// locks are the tokens of the locks that are held, by key.
func (s *server) locks() map[string]string {
	s.t.Helper()
	tokens := make(map[string]string)
	keys, err := s.client.Keys(s.t.Context(), lockKey("*")).Result()
	if err != nil {
		s.t.Fatal(err)
	}
	for _, key := range keys {
		if token, err := s.client.Get(s.t.Context(), key).Result(); err == nil {
			tokens[key] = token
		}
	}
	return tokens
}
