//go:build unix

package publish

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/dnspersist/caddy-dnspersist/internal/e2e/harness"
	"github.com/dnspersist/caddy-dnspersist/internal/lab"
	"github.com/dnspersist/caddy-dnspersist/internal/tuning"
)

// childEnv names a file with what a Caddy process has to know.
const childEnv = "DNS_PERSIST_PUBLISH_CHILD"

// child is one Caddy process.
type child struct {
	Config []byte
	// Servers maps the lab's name server addresses to those of this machine.
	Servers map[string]string
}

// TestMain lets the test binary be a Caddy process.
func TestMain(m *testing.M) {
	if file := os.Getenv(childEnv); file != "" {
		if err := runChild(file); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
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
	tuning.Set(tuning.Values{
		Exchanger: lab.Redirected{Servers: c.Servers},
		Grace:     2 * time.Second, Settle: 300 * time.Millisecond,
		MinPoll: 100 * time.Millisecond, MaxPoll: time.Second, HandBack: 2 * time.Second,
		AnnounceWindow: 500 * time.Millisecond, PropagationTimeout: 5 * time.Second,
		PublishInterval: 100 * time.Millisecond, PublishRetry: time.Second, Lease: time.Second,
	})
	if err := caddy.Load(c.Config, true); err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
	return caddy.Stop()
}

// process is a Caddy of its own on a storage.
type process struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
}

// command prepares a process with ports and a log of its own.
func command(e *harness.Env, a *api, storage string, names ...string) (*process, error) {
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
	config, err := harness.Adapt(node.Global() + node.Site(strings.Join(names, ", "), e.Block(a.block())))
	if err != nil {
		return nil, err
	}
	servers := make(map[string]string)
	for i := 1; i <= 2; i++ {
		servers[net.JoinHostPort(e.DNS.Address(i), "53")] = e.DNS.RealAddr(i)
	}
	data, err := json.Marshal(child{Config: config, Servers: servers})
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "child.json")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		return nil, err
	}
	p := &process{cmd: exec.Command(os.Args[0])}
	p.cmd.Env = append(os.Environ(), childEnv+"="+file)
	p.cmd.Stderr = os.Stderr
	p.stdin, err = p.cmd.StdinPipe()
	return p, err
}

// end lets the process stop by itself.
func (p *process) end() error {
	_ = p.stdin.Close()
	return p.cmd.Wait()
}

// stored waits for the certificate of a name in a storage.
func stored(e *harness.Env, storage, name string) error {
	node := *e
	node.Storage = storage
	return harness.Eventually(time.Minute, func() error {
		if !node.StoredCertificate(name) {
			return fmt.Errorf("%s has no certificate in storage", name)
		}
		return nil
	})
}

// Two and three Caddys on one storage write each name once.
func TestOneWriteInACluster(t *testing.T) {
	for _, nodes := range []int{2, 3} {
		t.Run(fmt.Sprint(nodes), func(t *testing.T) {
			e, a := newEnv(t, options(0))
			a.lag = time.Second
			names := []string{e.Name("one"), e.Name("two"), e.Name("three")}
			for _, n := range names {
				a.set(vname(n), foreign)
			}
			var all []*process
			for range nodes {
				p, err := command(e, a, e.Storage, names...)
				if err != nil {
					t.Fatal(err)
				}
				all = append(all, p)
			}
			for _, p := range all {
				if err := p.cmd.Start(); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() {
					if err := p.end(); err != nil {
						t.Errorf("a Caddy process ended badly: %v", err)
					}
				})
			}
			for _, n := range names {
				if err := stored(e, e.Storage, n); err != nil {
					t.Fatal(err)
				}
			}
			for _, n := range names {
				if w := a.count("append", vname(n)); w != 1 {
					t.Errorf("%s was written %d times, want once", n, w)
				}
				if got := a.at(vname(n)); len(got) != 2 || got[0] != foreign {
					t.Errorf("at %s there are %q", n, got)
				}
			}
			if n := len(e.CA.Requests("new-account")); n != 1 {
				t.Errorf("%d accounts were registered, want 1", n)
			}
		})
	}
}
