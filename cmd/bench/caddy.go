package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/certmagic"

	_ "github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile" // the Caddyfile adapter's server type
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp"
	_ "github.com/caddyserver/caddy/v2/modules/caddypki"
	_ "github.com/caddyserver/caddy/v2/modules/caddytls"
	_ "github.com/caddyserver/caddy/v2/modules/logging"

	_ "github.com/dnspersist/caddy-dnspersist" // what is measured
	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
	"github.com/dnspersist/caddy-dnspersist/internal/lab"
	"github.com/dnspersist/caddy-dnspersist/internal/tuning"
)

const fleetZone = "example.test"

// result is what one run of a fleet measured.
type result struct {
	Load       time.Duration  `json:"load"`
	First      time.Duration  `json:"first"`
	Median     time.Duration  `json:"median"`
	Last       time.Duration  `json:"last"`
	CPU        time.Duration  `json:"cpu"`
	Heap       int64          `json:"heap"`
	Goroutines int            `json:"goroutines"`
	Queries    int            `json:"queries"`
	Ops        map[string]op  `json:"ops"`
	Requests   map[string]int `json:"requests"`
}

// site is the world of one run: the CA, name servers, and files.
type site struct {
	ca   *lab.CA
	dns  *lab.DNS
	dir  string
	port int
}

func newSite() (s *site, err error) {
	s = new(site)
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if s.dir, err = os.MkdirTemp("", "bench-"); err != nil {
		return nil, err
	}
	if s.dns, err = lab.NewDNS(2); err != nil {
		return nil, err
	}
	s.dns.AddZone(fleetZone)
	s.dns.SetPick("worst")
	if s.ca, err = lab.NewCA(lab.CAConfig{Resolver: s.dns.Resolver()}); err != nil {
		return nil, err
	}
	s.port, err = lab.FreePort()
	return s, err
}

func (s *site) close() {
	if s.ca != nil {
		s.ca.Close()
	}
	if s.dns != nil {
		s.dns.Close()
	}
	if s.dir != "" {
		os.RemoveAll(s.dir)
	}
}

func (s *site) storage() string { return filepath.ToSlash(filepath.Join(s.dir, "storage")) }

// bind registers the account that Caddy will use, and returns the record's value.
func (s *site) bind() (string, error) {
	iss := acmepersist.New(acmepersist.Config{
		CA: s.ca.Directory(), Storage: &certmagic.FileStorage{Path: s.storage()}, Transport: s.ca.HTTPClient().Transport,
	})
	account, err := iss.Account(context.Background())
	if err != nil {
		return "", fmt.Errorf("binding an account: %w", err)
	}
	return record.Value{IssuerDomainName: lab.DefaultIssuerName, AccountURI: account.URL}.String(), nil
}

// config is Caddy's, with one site block for all names. admin is where its admin endpoint listens, or off.
func (s *site) config(admin string, names []string) ([]byte, error) {
	caddyfile := fmt.Sprintf(`{
	admin %s
	persist_config off
	auto_https disable_redirects
	https_port %d
	default_bind 127.0.0.1
	log {
		output file %q
	}
}
%s {
	tls {
		issuer dns_persist {
			dir %s
			trusted_roots %q
			resolvers %s
		}
	}
	respond "served by caddy"
}
`, admin, s.port, filepath.ToSlash(filepath.Join(s.dir, "caddy.log")), strings.Join(names, ", "),
		s.ca.Directory(), filepath.ToSlash(s.ca.RootsFile()), s.dns.Resolver())
	config, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(caddyfile), map[string]any{"filename": "Caddyfile"})
	if err != nil {
		return nil, err
	}
	return withStorage(config, s.storage())
}

// served makes sure that Caddy serves a name with a certificate of the CA.
func (s *site) served(name string) error {
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", fmt.Sprintf("127.0.0.1:%d", s.port),
		&tls.Config{ServerName: name, RootCAs: s.ca.IssuanceRoots(), MinVersion: tls.VersionTLS12})
	if err != nil {
		return err
	}
	return conn.Close()
}

// runFleet runs one Caddy until all names that have records have certificates.
func runFleet(o fleetOptions) (result, error) {
	var r result
	s, err := newSite()
	if err != nil {
		return r, err
	}
	defer s.close()
	defer tuning.Set(tuning.Values{Exchanger: s.dns.Exchanger()})()
	value, err := s.bind()
	if err != nil {
		return r, err
	}
	var with, all []string
	for i := range o.sites {
		name := fmt.Sprintf("n%d.%s", i, fleetZone)
		if all = append(all, name); i >= o.without {
			with = append(with, name)
			s.dns.SetTXT(0, record.Label+"."+name, value)
		}
	}
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	config, err := s.config("off", all)
	if err != nil {
		return r, err
	}
	finish, err := profile(o.profile)
	if err != nil {
		return r, err
	}
	before := len(s.ca.Requests())
	start, used := time.Now(), cpuTime()
	if err := caddy.Load(config, true); err != nil {
		return r, err
	}
	defer func() { _ = caddy.Stop() }()
	r.Load = time.Since(start)
	took, busy, err := await(with, start)
	if err != nil {
		return r, err
	}
	r.CPU, r.Goroutines, r.Queries = cpuTime()-used, busy, len(s.dns.Queries())
	r.Ops = counts.all()
	r.Requests = make(map[string]int)
	for _, q := range s.ca.Requests()[before:] {
		r.Requests[q.Step]++
	}
	if err := finish(); err != nil {
		return r, err
	}
	r.First, r.Median, r.Last = quantile(took, 0), quantile(took, 0.5), quantile(took, 1)
	time.Sleep(5 * time.Second) // those that wait have been looked for by then
	r.Heap = int64(heapInUse())
	for _, name := range with[max(0, len(with)-20):] {
		if err := s.served(name); err != nil {
			return r, fmt.Errorf("%s has a certificate, but is not served with it: %w", name, err)
		}
	}
	return r, nil
}

// await waits until all names have certificates in storage, and says when each had.
func await(names []string, start time.Time) (took []time.Duration, goroutines int, err error) {
	deadline := time.After(fleetLimit)
	for {
		goroutines = max(goroutines, runtime.NumGoroutine())
		counts.mu.Lock()
		n := len(counts.certificates)
		if n >= len(names) {
			for _, name := range names {
				took = append(took, counts.certificates[name].Sub(start))
			}
		}
		counts.mu.Unlock()
		if took != nil {
			return took, goroutines, nil
		}
		select {
		case <-counts.came:
		case <-deadline:
			return nil, 0, fmt.Errorf("%d of %d names have certificates after %s", n, len(names), fleetLimit)
		}
	}
}
