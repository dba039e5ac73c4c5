package e2e

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

// childEnv carries what a Caddy process of its own has to know.
const childEnv = "DNS_PERSIST_E2E_CHILD"

// child is one Caddy process of a cluster.
type child struct {
	Config []byte
	// Servers maps the lab's name server addresses to those of this machine.
	Servers map[string]string
}

// TestMain lets the test binary be a Caddy process of a cluster.
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
		MinPoll: 100 * time.Millisecond, MaxPoll: time.Second,
		AnnounceWindow: 500 * time.Millisecond, PropagationTimeout: 5 * time.Second,
		Lease: time.Second,
	})
	if err := caddy.Load(c.Config, true); err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
	return caddy.Stop()
}

// startCluster starts Caddy processes at once, on the environment's storage, CA and name
// servers. It returns their environments, which share everything but ports and log.
func startCluster(e *harness.Env, processes int, names []string) []*harness.Env {
	e.T.Helper()
	servers := make(map[string]string)
	for i := 1; i <= 2; i++ {
		servers[net.JoinHostPort(e.DNS.Address(i), "53")] = e.DNS.RealAddr(i)
	}
	var nodes []*harness.Env
	var commands []*exec.Cmd
	dir := e.T.TempDir()
	for i := range processes {
		node := *e
		node.LogFile = filepath.ToSlash(filepath.Join(dir, fmt.Sprintf("caddy-%d.log", i)))
		for _, p := range []*int{&node.HTTPPort, &node.HTTPSPort} {
			var err error
			if *p, err = lab.FreePort(); err != nil {
				e.T.Fatal(err)
			}
		}
		config, err := harness.Adapt(node.Global() + node.Site(strings.Join(names, ", "), e.Block()))
		if err != nil {
			e.T.Fatal(err)
		}
		data, err := json.Marshal(child{Config: config, Servers: servers})
		if err != nil {
			e.T.Fatal(err)
		}
		file := filepath.Join(dir, fmt.Sprintf("child-%d.json", i))
		if err := os.WriteFile(file, data, 0o600); err != nil {
			e.T.Fatal(err)
		}
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childEnv+"="+file)
		cmd.Stderr = os.Stderr
		stdin, err := cmd.StdinPipe()
		if err != nil {
			e.T.Fatal(err)
		}
		e.T.Cleanup(func() {
			_ = stdin.Close()
			if err := cmd.Wait(); err != nil {
				e.T.Errorf("a Caddy process ended badly: %v", err)
			}
		})
		nodes = append(nodes, &node)
		commands = append(commands, cmd)
	}
	for _, cmd := range commands {
		if err := cmd.Start(); err != nil {
			e.T.Fatal(err)
		}
	}
	return nodes
}

// Three Caddys on one storage start at once: one account, an order for each site.
func TestThreeProcessesOnOneStorage(t *testing.T) {
	for _, registered := range []bool{true, false} {
		t.Run(fmt.Sprintf("registered before: %v", registered), func(t *testing.T) {
			e := harness.New(t, harness.Options{})
			var names []string
			for i := range 5 {
				names = append(names, e.Name(fmt.Sprintf("site%d", i)))
			}
			if registered {
				value := e.Value(e.Bind(), false)
				for _, n := range names {
					e.Publish(n, value)
				}
			}
			nodes := startCluster(e, 3, names)
			if !registered {
				var value string
				e.Eventually(harness.Soon, "the record to be asked for", func() error {
					for _, node := range nodes {
						for _, l := range node.Logs("publish this TXT record once") {
							value, _ = l["value"].(string)
							return nil
						}
					}
					return fmt.Errorf("no entry")
				})
				for _, n := range names {
					e.Publish(n, value)
				}
			}
			for i, node := range nodes {
				for _, n := range names {
					node.Eventually(90*time.Second, fmt.Sprintf("process %d to serve %s", i, n), func() error {
						_, err := node.Trusted(n)
						return err
					})
				}
			}
			e.AssertClean(5)
			if n := e.CA.Certificates(); n != 5 {
				t.Errorf("the CA issued %d certificates, want 5", n)
			}
		})
	}
}

// Of three Caddys that wait for the same record one polls at the full pace, and all serve
// the certificate that one of them has obtained.
func TestOneNodePolls(t *testing.T) {
	e := harness.New(t, harness.Options{})
	name := e.Name("polled")
	value := e.Value(e.Bind(), false)
	nodes := startCluster(e, 3, []string{name})
	for _, node := range nodes {
		node.Asked(name)
	}
	polls := func() (n int) {
		for _, q := range e.DNS.Queries() {
			if q.Server != 0 && q.Type == "TXT" {
				n++
			}
		}
		return n
	}
	// the lab's shortest and longest intervals are a tenth of a second and a second: three
	// nodes at full pace would ask 30 times in ten seconds when the intervals have grown
	leased := func() error {
		files, _ := filepath.Glob(filepath.Join(e.Storage, "dns_persist", "*", "poller.json"))
		return harness.AtLeast(len(files), 1)
	}
	e.Eventually(harness.Soon, "the lease", leased)
	// intervals grow to a second within ten seconds
	var last int
	e.Eventually(harness.Soon, "the pace of one node", func() error {
		before := polls()
		timer := time.NewTimer(10 * time.Second)
		defer timer.Stop()
		<-timer.C
		if last = polls() - before; last > 16 {
			return fmt.Errorf("%d questions in ten seconds", last)
		}
		return nil
	})
	t.Logf("%d questions in ten seconds", last)
	if last < 5 {
		t.Errorf("%d questions in ten seconds: nobody polls", last)
	}
	e.Publish(name, value)
	for i, node := range nodes {
		node.Eventually(20*time.Second, fmt.Sprintf("process %d to serve it", i), func() error {
			_, err := node.Trusted(name)
			return err
		})
	}
	e.AssertClean(1)
}
