package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
	"github.com/dnspersist/caddy-dnspersist/internal/lab"
	_ "github.com/dnspersist/caddy-dnspersist/internal/rfc2136" // how the stock issuer writes its records
)

// loopRun is the command for the process that is the bare loop, burnRun for one that is load.
const (
	loopRun = "loop-run"
	burnRun = "burn-run"
)

// These are frozen, as is all of loopMain: it is what others are measured by.
const (
	loopWorkers = 8
	// loopInterval is much shorter than acmez' own, 250 ms, with which the loop mostly waits: it
	// would be no measure for anybody.
	loopInterval = 50 * time.Millisecond
	loopNote     = "acmez' ObtainCertificate, 8 workers, a connection for each, 50 ms between two looks at an order; keys P-256; no look" +
		" at DNS, nothing stored, logged or served. It is frozen: it is never made faster or slower"
	plainNote = "the same with acmez' own interval of 250 ms, frozen as well"
)

// attempt is a contestant's run.
type attempt struct {
	lab   *apart
	names []string
	dir   string // for its files
	// profile is where a CPU profile goes, if one is wanted.
	profile string
}

// measured is what came of it.
type measured struct {
	names   int // that got a certificate
	took    time.Duration
	first   time.Duration
	median  time.Duration
	cpu     time.Duration // of the contestant's process alone
	tallies tallies
}

func (m measured) rate() float64        { return float64(m.names) / m.took.Seconds() }
func (m measured) cpuPerName() float64  { return m.cpu.Seconds() * 1000 / float64(m.names) }
func (m measured) medianShare() float64 { return 100 * m.median.Seconds() / m.took.Seconds() }
func (m *measured) note(start time.Time) { // from the CA's log
	var took []time.Duration
	for _, at := range m.tallies.Issued {
		took = append(took, at.Sub(start))
	}
	m.names, m.first, m.median = len(took), quantile(took, 0), quantile(took, 0.5)
}

// selfCommand starts this program once more.
func selfCommand(ctx context.Context, args ...string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.Env = append(os.Environ(), selfEnv+"=1")
	return cmd, nil
}

// finish runs a contestant that ends by itself when all is done. One that failed with some of
// the names has measured something, too.
func (a *attempt) finish(cmd *exec.Cmd) (m measured, err error) {
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	start := time.Now()
	failed := cmd.Run()
	m.took = time.Since(start)
	if m.tallies, err = a.lab.tallies(); err != nil {
		return m, err
	}
	if failed != nil && len(m.tallies.Issued) == 0 {
		tail := stderr.Bytes()
		return m, fmt.Errorf("%w\n%s", failed, tail[max(0, len(tail)-2000):])
	}
	m.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	m.note(start)
	return m, nil
}

// loop is the bare loop with its interval between two polls.
func (a *attempt) loop(interval time.Duration) (m measured, err error) {
	where, err := json.Marshal(a.lab)
	if err != nil {
		return m, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), peersLimit)
	defer cancel()
	cmd, err := selfCommand(ctx, loopRun, "--lab", string(where), "--names", strconv.Itoa(len(a.names)), "--interval", interval.String())
	if err != nil {
		return m, err
	}
	return a.finish(cmd)
}

// loopMain is the process of the bare loop: what any Go program would do with acmez to get a
// certificate for each of many names. FROZEN: 8 workers, 50 ms between polls (in the row
// "default" acmez' 250 ms), acmez' own limits, one connection for each worker, no logger.
func loopMain(args []string, _, complaints io.Writer) error {
	flags := flag.NewFlagSet(loopRun, flag.ContinueOnError)
	where := flags.String("lab", "", "where the lab is, as `JSON`")
	count := flags.Int("names", 1, "how many names")
	interval := flags.Duration("interval", loopInterval, "how long between two polls")
	if err := parse(flags, args, complaints); err != nil {
		return err
	}
	var a apart
	if err := json.Unmarshal([]byte(*where), &a); err != nil {
		return err
	}
	transport, err := a.transport()
	if err != nil {
		return err
	}
	transport.MaxIdleConnsPerHost = loopWorkers
	client := acmez.Client{
		Client:           &acme.Client{Directory: a.Directory, HTTPClient: &http.Client{Transport: transport}, PollInterval: *interval},
		ChallengeSolvers: map[string]acmez.Solver{acme.ChallengeTypeDNSPersist01: standing{}},
	}
	ctx := context.Background()
	accountKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	account, err := client.NewAccount(ctx, acme.Account{TermsOfServiceAgreed: true, PrivateKey: accountKey})
	if err != nil {
		return err
	}
	names := peerNames(*count)
	value := record.Value{IssuerDomainName: lab.DefaultIssuerName, AccountURI: account.Location}.String()
	if err := a.publish(names, value); err != nil {
		return err
	}
	todo := make(chan string, len(names))
	for _, name := range names {
		todo <- name
	}
	close(todo)
	errs := make([]error, loopWorkers)
	var wg sync.WaitGroup
	for i := range loopWorkers {
		wg.Go(func() {
			for name := range todo {
				key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
				if err == nil {
					_, err = client.ObtainCertificateForSANs(ctx, account, key, []string{name})
				}
				if err != nil {
					errs[i] = fmt.Errorf("%s: %w", name, err)
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// standing solves challenges whose records are published already.
type standing struct{}

func (standing) Present(context.Context, acme.Challenge) error { return nil }
func (standing) CleanUp(context.Context, acme.Challenge) error { return nil }

// caddy is this Caddy, with records that are published already.
func (a *attempt) caddy() (measured, error) {
	if err := a.lab.bind(a.storage(), a.names); err != nil {
		return measured{}, err
	}
	return a.serve(fmt.Sprintf(`issuer dns_persist {
			dir %s
			trusted_roots %q
			resolvers %s
		}`, a.lab.Directory, filepath.ToSlash(a.lab.Roots), a.lab.Resolver))
}

// stock is the same Caddy with its own issuer and dns-01, with records written to a BIND.
func (a *attempt) stock(b *bind) (measured, error) {
	return a.serve(fmt.Sprintf(`issuer acme {
			dir %s
			email hostmaster@%s
			trusted_roots %q
			resolvers %s
			dns rfc2136 {
				key_name %s
				key_alg hmac-sha256
				key %s
				server %[4]s
			}
		}`, a.lab.Directory, peersZone, filepath.ToSlash(a.lab.Roots), b.addr, bindKey, bindSecret))
}

func (a *attempt) storage() string { return filepath.ToSlash(filepath.Join(a.dir, "storage")) }

// serve runs a Caddy with one site block for all names, until it serves the last one that the
// CA issued a certificate for, and kills it then: what it would do afterwards is not measured.
func (a *attempt) serve(issuer string) (m measured, err error) {
	port, err := lab.FreePort()
	if err != nil {
		return m, err
	}
	admin := "off"
	if a.profile != "" {
		adminPort, err := lab.FreePort()
		if err != nil {
			return m, err
		}
		admin = fmt.Sprintf("127.0.0.1:%d", adminPort)
	}
	caddyfile := fmt.Sprintf(`{
	admin %s
	persist_config off
	auto_https disable_redirects
	https_port %d
	default_bind 127.0.0.1
	storage file_system %q
	log {
		output file %q
	}
}
%s {
	tls {
		%s
	}
	respond "served by caddy"
}
`, admin, port, a.storage(), filepath.ToSlash(filepath.Join(a.dir, "caddy.log")), strings.Join(a.names, ", "), issuer)
	file, servers := filepath.Join(a.dir, "Caddyfile"), filepath.Join(a.dir, "servers.json")
	where, err := json.Marshal(a.lab.Servers)
	if err != nil {
		return m, err
	}
	if err := errors.Join(os.WriteFile(file, []byte(caddyfile), 0o600), os.WriteFile(servers, where, 0o600)); err != nil {
		return m, err
	}
	cmd, err := selfCommand(context.Background(), "run", "--config", file, "--adapter", "caddyfile")
	if err != nil {
		return m, err
	}
	cmd.Env = append(cmd.Env, operatorEnv+"="+servers)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := a.lab.reset(); err != nil {
		return m, err
	}
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return m, err
	}
	profiled := make(chan error, 1)
	go func() { profiled <- takeProfile(admin, a.profile) }()
	err = a.served(&m, port, start)
	if a.profile != "" {
		err = errors.Join(err, <-profiled)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	m.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	if err != nil {
		tail := stderr.Bytes()
		return m, fmt.Errorf("%w\n%s", err, tail[max(0, len(tail)-2000):])
	}
	return m, nil
}

// served waits until the Caddy that was just started listens, and until it serves all names.
func (a *attempt) served(m *measured, port int, start time.Time) error {
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	var err error
	if m.tallies, err = a.lab.await(len(a.names), peersLimit); err != nil && len(m.tallies.Issued) == 0 {
		return err
	}
	var last string
	for name, at := range m.tallies.Issued {
		if at.After(m.tallies.Issued[last]) {
			last = name
		}
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(a.lab.IssuanceRoots)
	config := &tls.Config{ServerName: last, RootCAs: roots, MinVersion: tls.VersionTLS12}
	if err := until(func() error {
		conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", addr, config)
		if err == nil {
			conn.Close()
		}
		return err
	}, time.Minute); err != nil {
		return fmt.Errorf("%s has a certificate, but is not served with it: %w", last, err)
	}
	m.took = time.Since(start)
	m.note(start)
	return nil
}

// until tries something every five milliseconds.
func until(do func() error, patience time.Duration) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); ; <-tick.C {
		if err := do(); err == nil || time.Now().After(deadline) {
			return err
		}
	}
}

// takeProfile has Caddy's admin endpoint make a CPU profile of its first seconds, if one is wanted.
func takeProfile(admin, dir string) error {
	if dir == "" {
		return nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return until(func() error {
		resp, err := http.Get("http://" + admin + "/debug/pprof/profile?seconds=4")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		file, err := os.Create(filepath.Join(dir, "cpu.pprof"))
		if err != nil {
			return err
		}
		_, err = io.Copy(file, resp.Body)
		return errors.Join(err, file.Close())
	}, 30*time.Second)
}

// burn starts so many busy loops, in a process each; stop ends them.
func burn(loops int) (stop func(), err error) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	stop = func() { cancel(); wg.Wait() }
	for range loops {
		cmd, err := selfCommand(ctx, burnRun)
		if err == nil {
			// its end is this process's end
			_, err = cmd.StdinPipe()
		}
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			stop()
			return nil, err
		}
		wg.Go(func() { _ = cmd.Wait() })
	}
	return stop, nil
}

// burnMain keeps a CPU busy until its standard input ends.
func burnMain([]string, io.Writer, io.Writer) error {
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	var block [sha256.Size]byte
	for {
		block = sha256.Sum256(block[:])
	}
}
