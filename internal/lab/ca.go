package lab

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	pebbleca "github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/wfe"
	"github.com/miekg/dns"
)

// DefaultIssuerName is the issuer domain name of a CA that is told no other.
const DefaultIssuerName = "pebble.letsencrypt.org"

// defaultProfile is used for orders that name no profile.
const defaultProfile = "default"

// CAConfig configures a CA.
type CAConfig struct {
	// Resolver is the "127.0.0.1:port" that the CA asks over TCP. If it is empty,
	// Pebble asks through net.DefaultResolver, and only a CA of the deployed drafts works.
	Resolver string
	// IssuerNames are the CA's issuer domain names. Default: DefaultIssuerName.
	IssuerNames []string
	// Lifetime of certificates, in whole seconds. 0: as Pebble likes it.
	Lifetime time.Duration
	// Profiles are further profiles with their lifetimes.
	Profiles map[string]time.Duration
	// EAB has the keys for external account binding, base64url, by key id.
	EAB        map[string]string
	RequireEAB bool
	// NonceReject is how many percent of good nonces are rejected.
	NonceReject int
	// ValidationSleep lets Pebble sleep for up to five seconds, at random,
	// before it validates.
	ValidationSleep bool
	// AlternateRoots is the number of alternate chains.
	AlternateRoots int
	// Dialect is how the CA speaks at first. Default: draft -01.
	Dialect Dialect
	// Log gets what Pebble logs. Default: io.Discard.
	Log io.Writer
}

// CA is a certification authority. All methods may be called at any time.
type CA struct {
	config CAConfig
	dir    string
	url    string
	roots  *x509.CertPool
	server *http.Server
	client *http.Client
	// resolver is what Pebble asks.
	resolver *dns.Server

	ctx    context.Context
	cancel context.CancelFunc
	once   sync.Once
	wg     sync.WaitGroup

	// turn is held while Pebble has a request: its store and its authorizations lock each other
	// up, also in 2.10.3, if it has two, of which one may only read.
	turn chan struct{}
	// validations limits how many are under way: Pebble gives each of its DNS
	// queries two seconds, which a busy machine needs.
	validations chan struct{}

	mu            sync.Mutex
	pebble        *pebble
	issuanceRoots *x509.CertPool

	requests   []*Request
	orders     []Order
	challenges []Challenge
	accounts   []string
	known      []*orderState          // every order, of all stores
	byOrder    map[string]*orderState // by id
	byAuthz    map[string]*authzState
	byChal     map[string]*chalState

	dialect    Dialect
	hashPrefix string              // "" is the default
	spoken     map[string]int      // answers by step since SetDialect
	keys       map[string][]string // thumbprints by account URL, the current one last

	listeners       []func(Event)
	withhold        bool // dns-persist-01 is not offered
	mutateAuthz     func(map[string]any)
	mutateDirectory func(map[string]any)
	faults          []*faultState
	validationDelay time.Duration
	finalizeDelay   time.Duration
	retryAfter      string
	public          publicState
}

// pebble is one Pebble with an own store.
type pebble struct {
	store   *db.MemoryStore
	ca      *pebbleca.CAImpl
	handler http.Handler
}

// environment guards the variables that configure a Pebble.
var environment sync.Mutex

// NewCA starts a CA.
func NewCA(config CAConfig) (*CA, error) {
	if len(config.IssuerNames) == 0 {
		config.IssuerNames = []string{DefaultIssuerName}
	}
	if config.Log == nil {
		config.Log = io.Discard
	}
	dialect, err := config.Dialect.complete()
	if err != nil {
		return nil, err
	}
	c := &CA{
		config:        config,
		turn:          make(chan struct{}, 1),
		validations:   make(chan struct{}, 16),
		issuanceRoots: x509.NewCertPool(),
		byOrder:       make(map[string]*orderState),
		byAuthz:       make(map[string]*authzState),
		byChal:        make(map[string]*chalState),
		dialect:       dialect,
		spoken:        make(map[string]int),
		keys:          make(map[string][]string),
		public: publicState{
			failed: make(map[string][]time.Time), changed: make(map[string]changedKey), ended: make(map[string]time.Time),
		},
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	if err := c.start(); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func (c *CA) start() error {
	root, leaf, err := endpointCertificate()
	if err != nil {
		return fmt.Errorf("certificate of the endpoint: %w", err)
	}
	c.roots = x509.NewCertPool()
	c.roots.AddCert(root)
	if c.dir, err = os.MkdirTemp("", "lab-ca-"); err != nil {
		return err
	}
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Raw})
	if err := os.WriteFile(c.RootsFile(), block, 0o600); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer func() {
		if c.server == nil {
			listener.Close()
		}
	}()
	c.url = "https://" + listener.Addr().String()
	if err := c.listenDNS(); err != nil {
		return err
	}
	if c.pebble, err = c.newPebble(); err != nil {
		return err
	}
	c.trust(c.pebble)
	c.client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: c.roots}}}
	c.server = &http.Server{
		Handler:  http.HandlerFunc(c.serve),
		ErrorLog: log.New(io.Discard, "", 0),
		// No HTTP/2, because its connections cannot be hijacked.
		TLSNextProto:      map[string]func(*http.Server, *tls.Conn, http.Handler){},
		ReadHeaderTimeout: 30 * time.Second,
	}
	secure := tls.NewListener(listener, &tls.Config{Certificates: []tls.Certificate{leaf}, NextProtos: []string{"http/1.1"}})
	c.wg.Go(func() { c.server.Serve(secure) })
	return nil
}

// Close stops the CA and removes its files.
func (c *CA) Close() {
	c.once.Do(func() {
		c.mu.Lock()
		c.cancel()
		c.mu.Unlock()
		if c.server != nil {
			c.server.Close()
		}
		if c.client != nil {
			c.client.CloseIdleConnections()
		}
		c.closeDNS()
		c.wg.Wait()
		if c.dir != "" {
			os.RemoveAll(c.dir)
		}
	})
}

// Directory is the URL of the ACME directory.
func (c *CA) Directory() string { return c.url + wfe.DirectoryPath }

// RootsFile is a PEM file with the root certificate of the https endpoint.
func (c *CA) RootsFile() string { return filepath.Join(c.dir, "roots.pem") }

// HTTPClient trusts the https endpoint.
func (c *CA) HTTPClient() *http.Client { return c.client }

// IssuanceRoots has the roots of the certificates that were issued.
func (c *CA) IssuanceRoots() *x509.CertPool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.issuanceRoots.Clone()
}

// Forget replaces Pebble's store by an empty one. It panics if Pebble does not
// start, which it did before.
func (c *CA) Forget() {
	fresh, err := c.newPebble()
	if err != nil {
		panic(fmt.Sprintf("lab: %v", err))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pebble = fresh
	c.trust(fresh)
}

// trust is called with c.mu held or before the CA is in use.
func (c *CA) trust(p *pebble) {
	for i := range p.ca.GetNumberOfRootCerts() {
		c.issuanceRoots.AddCert(p.ca.GetRootCert(i).Cert)
	}
}
