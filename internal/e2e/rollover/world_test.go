// Package rollover tests what changes the bound account on purpose: key rollover, export
// and import, deactivation. Whatever goes wrong on the way, the account must not be lost.
package rollover

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
	"github.com/dnspersist/caddy-dnspersist/internal/lab"
)

const zone = "example.test"

// world is a CA with its name servers, and a storage.
type world struct {
	t   *testing.T
	ca  *lab.CA
	dns *lab.DNS
	dir string
}

func newWorld(t *testing.T, dialect string) *world {
	t.Helper()
	d, err := lab.ParseDialect(dialect)
	if err != nil {
		t.Fatal(err)
	}
	dns, err := lab.NewDNS(1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dns.Close() })
	dns.AddZone(zone)
	ca, err := lab.NewCA(lab.CAConfig{Resolver: dns.Resolver(), Dialect: d})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ca.Close)
	return &world{t: t, ca: ca, dns: dns, dir: t.TempDir()}
}

// elsewhere is the same CA with another storage.
func (w *world) elsewhere() *world {
	other := *w
	other.dir = w.t.TempDir()
	return &other
}

// issuer is one process on the storage.
func (w *world) issuer(change ...func(*acmepersist.Config)) *acmepersist.Issuer {
	cfg := acmepersist.Config{
		CA: w.ca.Directory(), Storage: &certmagic.FileStorage{Path: w.dir}, Transport: w.ca.HTTPClient().Transport,
		Checker: propagation.NewChecker(propagation.Config{Resolvers: []string{w.dns.Resolver()}, Exchanger: w.dns.Exchanger()}),
		Grace:   time.Second, Settle: 100 * time.Millisecond, PollInterval: 50 * time.Millisecond, PropagationTimeout: 2 * time.Second,
	}
	for _, c := range change {
		c(&cfg)
	}
	return acmepersist.New(cfg)
}

func (w *world) bind() string {
	w.t.Helper()
	account, err := w.issuer().Account(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	return account.URL
}

func (w *world) roll(iss *acmepersist.Issuer) acmepersist.Rollover {
	w.t.Helper()
	r, err := iss.RollKey(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

func (w *world) export() []byte {
	w.t.Helper()
	data, err := w.issuer().ExportAccount(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	return data
}

// status is what the CA says to another process on the storage.
func (w *world) status() acmepersist.AccountState {
	w.t.Helper()
	state, err := w.issuer().AccountStatus(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	return state
}

// assertGood checks that the bound account is this one, that the CA knows its key, that
// another process can use it, and that the CA has no other.
func (w *world) assertGood(url string) {
	w.t.Helper()
	state := w.status()
	if state.Status != "valid" || state.URL != url || state.PendingRollover {
		w.t.Errorf("the account's state is %+v, want %s to be valid with no rollover pending", state, url)
	}
	if got := w.ca.Thumbprint(url); got != state.Thumbprint {
		w.t.Errorf("the CA has the key of thumbprint %s, storage that of %s", got, state.Thumbprint)
	}
	if account, err := w.issuer().Account(w.t.Context()); err != nil || account.URL != url || account.Thumbprint != state.Thumbprint {
		w.t.Errorf("another process binds %+v, %v", account, err)
	}
	if all := w.ca.Accounts(); len(all) != 1 {
		w.t.Errorf("the CA has the accounts %v, want one", all)
	}
}

func (w *world) folder() string {
	return filepath.Join(w.dir, "dns_persist", certmagic.StorageKeys.Safe(acmepersist.IssuerKey(w.ca.Directory())))
}

func (w *world) file() string { return filepath.Join(w.folder(), "account.json") }

// members are those of a JSON file; nil if there is none.
func members(t *testing.T, file string) map[string]any {
	t.Helper()
	data, err := os.ReadFile(file)
	if os.IsNotExist(err) {
		return nil
	}
	var m map[string]any
	if err == nil {
		err = json.Unmarshal(data, &m)
	}
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// change rewrites the members of a JSON document.
func change(t *testing.T, data []byte, f func(map[string]any)) []byte {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal(data, &m); err != nil {
		t.Fatal(err)
	}
	f(m)
	data, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func (w *world) text(key string) string {
	w.t.Helper()
	text, _ := members(w.t, w.file())[key].(string)
	return text
}

// assertGone checks that a key is in no file of ours.
func (w *world) assertGone(key string) {
	w.t.Helper()
	err := filepath.WalkDir(filepath.Join(w.dir, "dns_persist"), func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(p)
		var m map[string]any
		if err == nil && json.Unmarshal(data, &m) == nil {
			for name, value := range m {
				if value == key {
					w.t.Errorf("the old key is in %s as %s", p, name)
				}
			}
		}
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

// refused checks that there is an error with all of the words, and no key in it.
func refused(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", words)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("the error lacks %q: %v", word, err)
		}
	}
	if strings.Contains(err.Error(), "PRIVATE KEY") || strings.Contains(err.Error(), "BEGIN") {
		t.Errorf("the error holds a key: %v", err)
	}
}

// site is a CertMagic with one issuer.
type site struct {
	w     *world
	magic *certmagic.Config
	name  string
}

func (w *world) site(iss *acmepersist.Issuer, name string) *site {
	s := &site{w: w, name: name + "." + zone}
	cache := certmagic.NewCache(certmagic.CacheOptions{GetConfigForCert: func(certmagic.Certificate) (*certmagic.Config, error) { return s.magic, nil }})
	w.t.Cleanup(cache.Stop)
	s.magic = certmagic.New(cache, certmagic.Config{Storage: iss.Storage, Issuers: []certmagic.Issuer{iss}})
	return s
}

func (s *site) publish(values ...string) {
	s.w.dns.SetTXT(0, record.Label+"."+s.name, values...)
}

// value is the record's value for the account, by the lab's own computation in draft -02.
func (s *site) value(account string, hashed bool) string {
	if hashed {
		account = s.w.ca.HashedURI(account, s.name)
	}
	return record.Value{IssuerDomainName: lab.DefaultIssuerName, AccountURI: account}.String()
}

func (s *site) obtain(ctx context.Context) { s.try(s.magic.ObtainCertSync(ctx, s.name)) }

func (s *site) renew(ctx context.Context) {
	before := s.serial()
	s.try(s.magic.RenewCertSync(ctx, s.name, true))
	if s.serial() == before {
		s.w.t.Errorf("%s was not renewed", s.name)
	}
}

func (s *site) try(err error) {
	s.w.t.Helper()
	if err != nil {
		s.w.t.Fatal(err)
	}
}

func (s *site) serial() string {
	leaf := acmepersist.StoredCertificate(s.w.t.Context(), s.magic.Storage, acmepersist.IssuerKey(s.w.ca.Directory()), s.name)
	if leaf == nil {
		s.w.t.Fatalf("there is no certificate of %s", s.name)
	}
	return leaf.SerialNumber.String()
}
