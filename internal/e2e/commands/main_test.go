// Package commands tests `caddy dns-persist` as a user runs it: a Caddy with the plugin as a
// process of its own, against the lab's CA and name servers.
package commands

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	"github.com/dnspersist/caddy-dnspersist/internal/beside"
	"github.com/dnspersist/caddy-dnspersist/internal/e2e/harness"
	"github.com/dnspersist/caddy-dnspersist/internal/lab"
	"github.com/dnspersist/caddy-dnspersist/internal/tuning"
)

// childEnv names a file with what a process has to know to be a caddy.
const childEnv = "DNS_PERSIST_E2E_COMMAND"

// TestMain lets the test binary be caddy.
func TestMain(m *testing.M) {
	file := os.Getenv(childEnv)
	if file == "" {
		os.Exit(beside.Run(m))
	}
	data, err := os.ReadFile(file)
	if err != nil {
		panic(err)
	}
	var servers map[string]string
	if err := json.Unmarshal(data, &servers); err != nil {
		panic(err)
	}
	tuning.Set(tuning.Values{
		Exchanger: lab.Redirected{Servers: servers},
		Grace:     2 * time.Second, Settle: 300 * time.Millisecond,
		MinPoll: 100 * time.Millisecond, MaxPoll: time.Second, PropagationTimeout: 5 * time.Second,
	})
	caddycmd.Main()
}

// env is an environment with a caddy to call.
type env struct {
	*harness.Env
	servers string // file for childEnv
	config  string // Caddyfile
	dir     string // where commands are run; empty for an empty directory
	// said is all that commands have written, but exports.
	said bytes.Buffer
}

func newEnv(t *testing.T, o harness.Options) *env {
	t.Helper()
	e := &env{Env: harness.New(t, o)}
	port, err := lab.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	e.Admin = fmt.Sprintf("127.0.0.1:%d", port)
	servers := make(map[string]string)
	for i := range e.DNS.Servers() {
		servers[e.DNS.Address(i+1)+":53"] = e.DNS.RealAddr(i + 1)
	}
	data, err := json.Marshal(servers)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	e.servers, e.config = filepath.Join(dir, "servers.json"), filepath.Join(dir, "Caddyfile")
	if err := os.WriteFile(e.servers, data, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.assertNoSecret)
	return e
}

// configure writes the Caddyfile.
func (e *env) configure(caddyfile string) {
	e.T.Helper()
	if err := os.WriteFile(e.config, []byte(caddyfile), 0o600); err != nil {
		e.T.Fatal(err)
	}
}

// result is what a command has come to.
type result struct {
	out, err string
	status   int
}

// caddy runs `caddy dns-persist` with the arguments, in an empty directory
// unless dir says otherwise.
func (e *env) caddy(args ...string) result { return e.caddyIn("", args...) }

// caddyIn is caddy with something on standard input.
func (e *env) caddyIn(stdin string, args ...string) result {
	e.T.Helper()
	self, err := os.Executable()
	if err != nil {
		e.T.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(e.T.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, self, append([]string{"dns-persist"}, args...)...)
	home := e.T.TempDir()
	cmd.Dir = cmp.Or(e.dir, home)
	cmd.Env = append(os.Environ(), childEnv+"="+e.servers, "HOME="+home, "XDG_CONFIG_HOME=", "XDG_DATA_HOME=")
	cmd.Stdin = strings.NewReader(stdin)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	r := result{}
	var exit *exec.ExitError
	if err := cmd.Run(); errors.As(err, &exit) {
		r.status = exit.ExitCode()
	} else if err != nil {
		e.T.Fatal(err)
	}
	r.out, r.err = out.String(), said.String()
	if len(args) < 2 || args[1] != "export" {
		e.said.WriteString(r.out)
	}
	e.said.WriteString(r.err)
	for _, text := range []string{r.out, r.err} {
		if strings.Contains(text, "goroutine ") || strings.Contains(text, "panic:") {
			e.T.Errorf("caddy dns-persist %s: %s", strings.Join(args, " "), text)
		}
	}
	return r
}

// prepare makes a command that the test runs itself.
func (e *env) prepare(args ...string) *exec.Cmd {
	e.T.Helper()
	self, err := os.Executable()
	if err != nil {
		e.T.Fatal(err)
	}
	cmd := exec.CommandContext(e.T.Context(), self, append([]string{"dns-persist"}, args...)...)
	cmd.Env = append(os.Environ(), childEnv+"="+e.servers)
	return cmd
}

// with is caddy with the environment's configuration.
func (e *env) with(args ...string) result { return e.caddy(append(args, "--config", e.config)...) }

// ok is a command that has to end with status 0.
func (e *env) ok(args ...string) result {
	e.T.Helper()
	return e.ends(0, args...)
}

// ends is a command, with the environment's configuration unless another source is named,
// that has to end with a status.
func (e *env) ends(status int, args ...string) result {
	e.T.Helper()
	if !strings.Contains(strings.Join(args, " "), "--address") && !strings.Contains(strings.Join(args, " "), "--account-url") {
		args = append(args, "--config", e.config)
	}
	r := e.caddy(args...)
	if r.status != status {
		e.T.Fatalf("caddy dns-persist %s: status %d, want %d\n%s\n%s", strings.Join(args, " "), r.status, status, r.out, r.err)
	}
	return r
}

// assertNoSecret searches all that was said, and Caddy's log, for the keys in storage.
func (e *env) assertNoSecret() {
	var secrets []string
	_ = filepath.WalkDir(e.Storage, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		text := strings.ReplaceAll(string(data), `\n`, "\n")
		for _, line := range strings.Split(text, "\n") {
			if len(line) == 64 && !strings.ContainsAny(line, ` "{}:`) && strings.Contains(text, "PRIVATE KEY") {
				secrets = append(secrets, line)
			}
		}
		return nil
	})
	log, _ := os.ReadFile(e.LogFile)
	for _, where := range []string{e.said.String(), string(log)} {
		for _, s := range append(secrets, "PRIVATE KEY", eabKey) {
			if strings.Contains(where, s) {
				e.T.Errorf("a secret was shown: %q", s)
			}
		}
	}
}

// eabKey is the MAC key of tests with an external account binding.
const eabKey = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"

// decode reads JSON.
func decode[T any](t testing.TB, text string) T {
	t.Helper()
	var v T
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return v
}
