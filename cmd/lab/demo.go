package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"

	"github.com/dnspersist/caddy-dnspersist/internal/lab"
	"github.com/dnspersist/caddy-dnspersist/internal/tuning"
)

const (
	zone    = "example.test"
	plain   = "www.example.test"
	apex    = "shop.example.test"
	late    = "late.example.test"
	someone = "anyone.shop.example.test"

	// certificateLife is short enough to see a renewal within a minute.
	certificateLife = 45 * time.Second
	// playLife leaves time to type.
	playLife = 3 * time.Minute
	// firstServer and secondServer are how long the late site's owner takes.
	firstServer  = 3 * time.Second
	secondServer = 4 * time.Second
)

// demo is one run.
type demo struct {
	screen
	ca      *lab.CA
	dns     *lab.DNS
	records *records
	dir     string
	restore func()

	port, httpPort int
	admin          string      // the address of Caddy's admin endpoint
	config         string      // the Caddyfile that Caddy has
	blocked        atomic.Bool // name servers cannot be reached

	commands sync.Mutex // held while one is obeyed
	added    []string   // sites
	quit     chan struct{}

	mu       sync.Mutex
	wanted   map[string]string // validation name -> value
	complete time.Time         // when the last server had the late record
	first    time.Duration     // until the first certificate
	// firstIssued is when the CA issued it.
	firstIssued time.Time
	changes     int // of DNS
	verbose     bool
}

// begin brings up the name servers and the CA.
func begin(o options, out io.Writer) (*demo, error) {
	d := &demo{screen: screen{began: time.Now(), out: out}, wanted: make(map[string]string), quit: make(chan struct{}), verbose: o.verbose}
	servers, life := 2, certificateLife
	values := tuning.Values{
		Grace: 10 * time.Second, Settle: 2 * time.Second,
		MinPoll: 250 * time.Millisecond, MaxPoll: 2 * time.Second, AnnounceWindow: time.Second, DiagnoseAfter: 2 * time.Second, LookAtNames: 15 * time.Second, InlineProcessing: 5 * time.Second,
	}
	// a CA may ask any of the servers; this one asks the one that makes it fail
	pick := "worst"
	if s := o.scenario; s != nil {
		servers, life, pick = s.servers, s.life, s.pick
		values.Grace, values.PropagationTimeout, values.MinAsk = 5*time.Second, 2*time.Second, 2*time.Second
	}
	if o.play {
		life = playLife
	}
	var err error
	if d.dir, err = os.MkdirTemp("", folders); err != nil {
		return nil, err
	}
	if d.dns, err = lab.NewDNS(servers); err != nil {
		return nil, err
	}
	d.dns.AddZone(zone)
	d.dns.SetPick(pick)
	d.records = newRecords(d.dns)
	if d.ca, err = lab.NewCA(lab.CAConfig{Resolver: d.dns.Resolver(), Lifetime: life, Dialect: o.dialect}); err != nil {
		return nil, err
	}
	d.ca.OnEvent(d.caEvent)
	values.Exchanger = &firewall{Exchanger: d.dns.Exchanger(), resolver: d.dns.Resolver(), blocked: &d.blocked}
	d.restore = tuning.Set(values)
	narrator = d
	d.say("A CA at %s", d.ca.Directory())
	d.say("%d authoritative name servers for %s (%s to %s), a recursive one at %s", servers, zone, host(d.dns, 1), host(d.dns, servers), d.dns.Resolver())
	adminPort := 0
	for _, port := range []*int{&d.httpPort, &d.port, &adminPort} {
		if *port, err = lab.FreePort(); err != nil {
			return nil, err
		}
	}
	d.admin = fmt.Sprintf("127.0.0.1:%d", adminPort)
	return d, nil
}

// start shows the Caddyfile and starts Caddy with it, or reloads it.
func (d *demo) start(config string) error {
	d.say("Caddy takes this Caddyfile:\n\n%s", indent(config))
	return d.load(config)
}

func (d *demo) load(config string) error {
	adapted, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(config), map[string]any{"filename": "Caddyfile"})
	if err != nil {
		return fmt.Errorf("adapting the Caddyfile: %w", err)
	}
	if err := caddy.Load(adapted, true); err != nil {
		return fmt.Errorf("starting Caddy: %w", err)
	}
	d.config = config
	return nil
}

// global is the Caddyfile's global options.
func (d *demo) global(more string) string {
	return fmt.Sprintf(`{
	admin %s
	persist_config off
	http_port %d
	https_port %d
	default_bind 127.0.0.1
	renew_interval 2s
	storage file_system %q
	log {
		output dns_persist_lab
		format json
	}
	cert_issuer dns_persist {
		dir %s
		trusted_roots %q
		resolvers %s%s
	}
}
`, d.admin, d.httpPort, d.port, filepath.ToSlash(filepath.Join(d.dir, "storage")), d.ca.Directory(), filepath.ToSlash(d.ca.RootsFile()), d.dns.Resolver(), more)
}

func (d *demo) caddyfile() string {
	return d.global("") + fmt.Sprintf(`
%s {
	respond "a plain name"
}

%s, *.%s {
	respond "an apex and its wildcard, from one record"
}

%s {
	dns_persist
	respond "a name whose record came late"
}
`, plain, apex, apex, late)
}

// demonstrate plays the owners of the sites and verifies what comes of it.
func (d *demo) demonstrate(ctx context.Context) error {
	if err := d.start(d.caddyfile()); err != nil {
		return err
	}
	names := []string{plain, apex, late}
	for _, name := range names {
		if err := d.until(ctx, "Caddy to ask for the record of "+name, func() error { _, err := d.value(name); return err }); err != nil {
			return err
		}
	}
	for _, name := range []string{plain, apex} {
		value, _ := d.value(name)
		d.publish(0, name, value)
	}
	d.say("The owner of %s takes a while …", late)
	value, _ := d.value(late)
	if err := pause(ctx, firstServer); err != nil {
		return err
	}
	d.publish(1, late, value)
	if err := pause(ctx, secondServer); err != nil {
		return err
	}
	d.mu.Lock()
	d.complete = time.Now()
	d.mu.Unlock()
	d.publish(2, late, value)

	serials := make(map[string]string)
	for _, name := range []string{plain, apex, someone, late} {
		if err := d.until(ctx, "HTTPS for "+name, func() (err error) { serials[name], err = d.serial(name); return err }); err != nil {
			return err
		}
		d.say("Caddy serves https://%s:%d/ with a certificate of the CA", name, d.port)
	}
	first := time.Since(d.began)
	changes := d.changes
	d.mu.Lock()
	d.first = d.firstIssued.Sub(d.began)
	d.mu.Unlock()
	d.say("Nobody touches DNS any more. Certificates live for %s here, so that the maintenance loop renews soon …", certificateLife)
	err := d.until(ctx, "the renewal of "+plain, func() error {
		serial, err := d.serial(plain)
		if err == nil && serial == serials[plain] {
			err = errors.New("it is still the first certificate")
		}
		return err
	})
	if err != nil {
		return err
	}
	d.say("Caddy has renewed %s by itself, with no DNS change", plain)
	return d.summary(first, changes)
}

// summary prints the figures and checks those that must hold.
func (d *demo) summary(all time.Duration, changesBefore int) error {
	failed := d.ca.FailedValidations()
	d.say("Done: the first certificate after %.1f s, all after %.1f s, a renewal after %.1f s; %d orders, %d validations asked, %d validations failed",
		d.first.Seconds(), all.Seconds(), time.Since(d.began).Seconds(), len(d.ca.Orders()), d.ca.Count("challenge"), len(failed))
	d.say("See for yourself:\n    curl --cacert %s \\\n      --resolve %s:%d:127.0.0.1 https://%[2]s:%d/", d.issuanceRoots(), plain, d.port)
	switch {
	case len(failed) > 0:
		return fmt.Errorf("%d validations failed, the first: %s", len(failed), failed[0].Detail)
	case d.changes != changesBefore:
		return fmt.Errorf("DNS was changed %d times for the renewal", d.changes-changesBefore)
	}
	for _, c := range d.ca.Challenges() {
		if c.Identifier == late && c.Time.Before(d.complete) {
			return fmt.Errorf("the CA was asked for %s before the last server had its record", late)
		}
	}
	return nil
}

// issuanceRoots writes the roots of the served certificates to a file.
func (d *demo) issuanceRoots() string {
	file := filepath.Join(d.dir, "roots.pem")
	if err := os.WriteFile(file, d.ca.IssuanceRootsPEM(), 0o600); err != nil {
		return "ROOTS"
	}
	return file
}

func (d *demo) publish(server int, name, value string) {
	d.mu.Lock()
	d.changes++
	d.mu.Unlock()
	where := "all name servers have it"
	if server > 0 {
		d.dns.SetTXT(server, validationName(name), value)
		where = host(d.dns, server) + " has it"
	} else {
		d.records.set(validationName(name), value)
	}
	d.say("The owner of %s publishes the record: %s", name, where)
}

// host is the name of a server as people write it.
func host(dns *lab.DNS, server int) string { return strings.TrimSuffix(dns.Host(server), ".") }

// value returns what Caddy asked to publish for a name.
func (d *demo) value(name string) (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	v, ok := d.wanted[validationName(name)]
	if !ok {
		return "", errors.New("it was not asked for")
	}
	return v, nil
}

// serial returns the serial number of the certificate that Caddy serves, if the CA issued it.
func (d *demo) serial(name string) (string, error) {
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 5 * time.Second}, "tcp", fmt.Sprintf("127.0.0.1:%d", d.port),
		&tls.Config{ServerName: name, RootCAs: d.ca.IssuanceRoots(), MinVersion: tls.VersionTLS12})
	if err != nil {
		return "", err
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0].SerialNumber.String(), nil
}
