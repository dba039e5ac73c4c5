package harness

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/dnspersist/caddy-dnspersist/internal/beside"
	"github.com/dnspersist/caddy-dnspersist/internal/lab"
	"github.com/dnspersist/caddy-dnspersist/internal/tuning"
	"github.com/dnspersist/caddy-dnspersist/internal/walltime"
)

// childEnv names a file with what a Caddy process has to know.
const childEnv = "DNS_PERSIST_E2E_CHILD"

type child struct {
	Config []byte
	// Servers maps the lab's name server addresses to those of this machine.
	Servers map[string]string
	// Tuning is that of the environment, without the exchanger.
	Tuning tuning.Values
	// ClockAhead is that of the environment.
	ClockAhead time.Duration
}

// Main is the body of a TestMain: it lets the test binary be a Caddy process, and else runs
// the tests, each in a process of its own.
func Main(m *testing.M) {
	if isChild() {
		return
	}
	os.Exit(beside.Run(m))
}

// MainInTurn is Main for tests that need the machine for themselves: they run one after another, and no Caddy
// may run in their own process.
func MainInTurn(m *testing.M) {
	if isChild() {
		return
	}
	os.Exit(m.Run())
}

// isChild runs Caddy if this process was started for it.
func isChild() bool {
	file := os.Getenv(childEnv)
	if file == "" {
		return false
	}
	if err := runChild(file); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return true
}

// runChild runs Caddy until standard input ends.
func runChild(file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var c child
	if err := json.Unmarshal(data, &c); err != nil {
		return err
	}
	values := c.Tuning
	values.Exchanger = lab.Redirected{Servers: c.Servers}
	tuning.Set(values)
	walltime.Set(c.ClockAhead)
	if err := caddy.Load(c.Config, true); err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
	return caddy.Stop()
}

// Process is a Caddy process of its own, on the environment's CA and name servers.
type Process struct {
	// Env is its view: it has ports and a log of its own.
	*Env
	Cmd   *exec.Cmd
	stdin io.WriteCloser
}

// Process prepares a process on a storage with the Caddyfile that site makes; start it with
// Cmd.Start. The test binary's TestMain has to be Main.
func (e *Env) Process(storage string, site func(*Env) string) (*Process, error) {
	dir, err := os.MkdirTemp(filepath.Dir(e.Storage), "caddy-")
	if err != nil {
		return nil, err
	}
	node := *e
	node.LogFile, node.Storage = filepath.ToSlash(filepath.Join(dir, "caddy.log")), storage
	for _, p := range []*int{&node.HTTPPort, &node.HTTPSPort} {
		if *p, err = lab.FreePort(); err != nil {
			return nil, err
		}
	}
	config, err := Adapt(node.Global() + site(&node))
	if err != nil {
		return nil, err
	}
	servers := make(map[string]string)
	for i := 1; i <= e.DNS.Servers(); i++ {
		servers[net.JoinHostPort(e.DNS.Address(i), "53")] = e.DNS.RealAddr(i)
	}
	values := e.values
	values.Exchanger = nil
	data, err := json.Marshal(child{Config: config, Servers: servers, Tuning: values, ClockAhead: e.ClockAhead})
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "child.json")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		return nil, err
	}
	p := &Process{Env: &node, Cmd: exec.Command(os.Args[0])}
	p.Cmd.Env = append(os.Environ(), childEnv+"="+file)
	p.Cmd.Stderr = os.Stderr
	p.stdin, err = p.Cmd.StdinPipe()
	return p, err
}

// End lets the process stop by itself.
func (p *Process) End() error {
	_ = p.stdin.Close()
	return p.Cmd.Wait()
}

// Cluster starts processes at once, on the environment's storage. They end with the test.
func (e *Env) Cluster(processes int, site func(*Env) string) []*Env {
	e.T.Helper()
	var nodes []*Env
	var all []*Process
	for range processes {
		p, err := e.Process(e.Storage, site)
		if err != nil {
			e.T.Fatal(err)
		}
		nodes, all = append(nodes, p.Env), append(all, p)
	}
	for _, p := range all {
		if err := p.Cmd.Start(); err != nil {
			e.T.Fatal(err)
		}
		e.T.Cleanup(func() {
			if err := p.End(); err != nil {
				e.T.Errorf("a Caddy process ended badly: %v", err)
			}
		})
	}
	return nodes
}
