// Package harness runs a real Caddy, with the plugin as users build it in, against
// the lab's CA and name servers. It is for tests.
//
// A process has one Caddy, whose configuration is global, and the tests of an e2e package
// wait most of the time. So each test runs in a process of its own, beside others: a package
// of e2e tests has the TestMain
//
//	func TestMain(m *testing.M) { harness.Main(m) }
//
// and its tests are written as if nothing else ran: no t.Parallel, no care for what an
// earlier one left behind. What one has to keep in mind:
//
//   - The machine is busy. Wait for a condition, with Eventually and Soon; never conclude
//     from a short wait that something is done, and leave room where a time is asserted.
//   - Ports come from lab.FreePort, files from t.TempDir: other processes pick, too.
//   - Subtests run one after another in their test's process. A long list of them is the time
//     that the package takes: then make them tests.
//   - One that takes longer than a minute or two, or needs a browser or a database, stands
//     behind the build tag long, which .ci/run sets.
//   - A failed test is run alone with -run, in one process, under a debugger, too.
package harness

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
	"github.com/dnspersist/caddy-dnspersist/internal/lab"
	"github.com/dnspersist/caddy-dnspersist/internal/tuning"
)

// zone is where all test names lie.
const zone = "example.test"

// IssuerName is the issuer domain name of the lab's CA.
const IssuerName = "pebble.letsencrypt.org"

// Options of an environment.
type Options struct {
	// Lifetime is the validity of certificates. Default: the CA's.
	Lifetime time.Duration
	// CA changes the CA further.
	CA lab.CAConfig
	// Tuning replaces the defaults of the environment, in its processes, too.
	Tuning func(*tuning.Values)
	// Servers is the number of name servers. Default: 2.
	Servers int
}

// Env is one test's CA, name servers, storage and Caddy.
type Env struct {
	T                testing.TB
	CA               *lab.CA
	DNS              *lab.DNS
	Storage, LogFile string
	// StorageModule is what follows `storage` in a Caddyfile, where that is not file_system at Storage.
	StorageModule string
	// Options are further global options, a line each.
	Options []string
	// ClockAhead puts the clock of the processes that are started from now on ahead, as far as it is
	// walltime's: CertMagic and the lab go by the machine's.
	ClockAhead time.Duration
	// Admin is where Caddy's admin endpoint listens; nowhere if empty.
	Admin               string
	HTTPPort, HTTPSPort int
	running             bool
	values              tuning.Values
}

// New makes an environment. It ends with the test.
func New(t testing.TB, o Options) *Env {
	t.Helper()
	if o.Servers == 0 {
		o.Servers = 2
	}
	dns, err := lab.NewDNS(o.Servers)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dns.Close() })
	dns.AddZone(zone)
	// a CA may ask any server: the lab's takes the one that makes it fail
	dns.SetPick("worst")
	dir := folder(t)
	e := &Env{T: t, DNS: dns, Storage: filepath.ToSlash(filepath.Join(dir, "storage")), LogFile: filepath.ToSlash(filepath.Join(dir, "caddy.log"))}
	e.CA = e.NewCA(o)
	for _, p := range []*int{&e.HTTPPort, &e.HTTPSPort} {
		if *p, err = lab.FreePort(); err != nil {
			t.Fatal(err)
		}
	}
	values := fast()
	values.Exchanger = dns.Exchanger()
	if o.Tuning != nil {
		o.Tuning(&values)
	}
	e.values = values
	t.Cleanup(tuning.Set(values))
	return e
}

// fast are times that a test can wait for.
func fast() tuning.Values {
	return tuning.Values{
		Grace: 2 * time.Second, Settle: 300 * time.Millisecond,
		MinPoll: 100 * time.Millisecond, MaxPoll: time.Second,
		AnnounceWindow: 500 * time.Millisecond, PropagationTimeout: 5 * time.Second,
	}
}

// folder makes one for the files of a test. CertMagic's jobs go on for a moment after Caddy has stopped, and may
// write while it is removed.
func folder(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "e2e-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for began := time.Now(); ; {
			err := os.RemoveAll(dir)
			if err == nil {
				return
			}
			if time.Since(began) > Soon {
				t.Error(err)
				return
			}
			timer := time.NewTimer(20 * time.Millisecond)
			<-timer.C
		}
	})
	return dir
}

// NewCA makes another CA, which uses the same name servers.
func (e *Env) NewCA(o Options) *lab.CA {
	e.T.Helper()
	config := o.CA
	config.Resolver = e.DNS.Resolver()
	if o.Lifetime != 0 {
		config.Lifetime = o.Lifetime
	}
	ca, err := lab.NewCA(config)
	if err != nil {
		e.T.Fatal(err)
	}
	e.T.Cleanup(func() { ca.Close() })
	return ca
}

// Name returns a name that no other test uses: Caddy, CertMagic and acmez keep some state
// for the whole process.
func (e *Env) Name(label string) string {
	test := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, strings.ToLower(e.T.Name()))
	return fmt.Sprintf("%s.t%s-%d.%s", label, test[max(0, len(test)-40):], e.HTTPSPort, zone)
}

// BlockFor is an issuer's block for a CA; more is put into it.
func (e *Env) BlockFor(ca *lab.CA, more ...string) string {
	return fmt.Sprintf(`{
			dir %s
			trusted_roots %q
			resolvers %s
			%s
		}`, ca.Directory(), filepath.ToSlash(ca.RootsFile()), e.DNS.Resolver(), strings.Join(more, "\n\t\t\t"))
}

// Bind registers the account that Caddy will use, and returns its URL.
func (e *Env) Bind() string { return e.BindFor(e.CA) }

// BindFor is Bind for another CA.
func (e *Env) BindFor(ca *lab.CA) string {
	e.T.Helper()
	iss := acmepersist.New(acmepersist.Config{CA: ca.Directory(), Storage: e.FileStorage(), Transport: ca.HTTPClient().Transport})
	account, err := iss.Account(context.Background())
	if err != nil {
		e.T.Fatalf("binding an account: %v", err)
	}
	return account.URL
}

// Value is the record's value for an account at the environment's CA.
func (e *Env) Value(account string, wildcard bool) string { return e.ValueFor(e.CA, account, wildcard) }

// ValueFor is Value for another CA.
func (e *Env) ValueFor(_ *lab.CA, account string, wildcard bool) string {
	return record.Value{IssuerDomainName: IssuerName, AccountURI: account, Wildcard: wildcard}.String()
}

// Publish sets the TXT values at a name's validation name on all servers.
func (e *Env) Publish(name string, values ...string) { e.PublishOn(0, name, values...) }

// PublishOn is Publish on one server, counted from 1.
func (e *Env) PublishOn(server int, name string, values ...string) {
	e.DNS.SetTXT(server, record.Label+"."+record.Base(name), values...)
}

// AssertClean checks that the CA saw the given number of orders and no failed validation.
func (e *Env) AssertClean(orders int) {
	e.T.Helper()
	e.AssertCleanFor(e.CA, orders)
}

// AssertCleanFor is AssertClean for another CA.
func (e *Env) AssertCleanFor(ca *lab.CA, orders int) {
	e.T.Helper()
	if n := len(ca.Orders()); n != orders {
		e.T.Errorf("the CA saw %d orders, want %d: %v", n, orders, ca.Orders())
	}
	if failed := ca.FailedValidations(); len(failed) != 0 {
		e.T.Errorf("the CA saw %d failed validations, want 0: %v", len(failed), failed)
	}
	if n := len(ca.Accounts()); n != 1 {
		e.T.Errorf("the CA has %d accounts, want 1", n)
	}
}

// TrustedBy checks that Caddy serves a certificate of another CA for a name.
func (e *Env) TrustedBy(ca *lab.CA, name string) error {
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", fmt.Sprintf("127.0.0.1:%d", e.HTTPSPort),
		&tls.Config{ServerName: name, RootCAs: ca.IssuanceRoots(), MinVersion: tls.VersionTLS12})
	if err != nil {
		return err
	}
	return conn.Close()
}

// Want returns an error unless got is want.
func Want(got, want int) error {
	if got != want {
		return fmt.Errorf("got %d, want %d", got, want)
	}
	return nil
}

// AtLeast returns an error while got is less than want.
func AtLeast(got, want int) error {
	if got < want {
		return fmt.Errorf("got %d, want at least %d", got, want)
	}
	return nil
}

// ReadFile returns a file of the storage.
func (e *Env) ReadFile(path ...string) []byte {
	e.T.Helper()
	data, err := os.ReadFile(filepath.Join(append([]string{e.Storage}, path...)...))
	if err != nil {
		e.T.Fatal(err)
	}
	return data
}
