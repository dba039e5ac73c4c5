package harness

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/certmagic"

	_ "github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile" // the Caddyfile adapter's server type
	_ "github.com/caddyserver/caddy/v2/modules/caddyevents/eventsconfig"
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp"
	_ "github.com/caddyserver/caddy/v2/modules/caddypki"
	_ "github.com/caddyserver/caddy/v2/modules/caddytls"
	_ "github.com/caddyserver/caddy/v2/modules/filestorage"
	_ "github.com/caddyserver/caddy/v2/modules/logging"

	_ "github.com/dnspersist/caddy-dnspersist" // what is tested
)

// Adapt turns a Caddyfile into JSON.
func Adapt(caddyfile string) ([]byte, error) {
	adapter := caddyconfig.GetAdapter("caddyfile")
	config, _, err := adapter.Adapt([]byte(caddyfile), map[string]any{"filename": "Caddyfile"})
	return config, err
}

// Global is the block of global options that makes Caddy use the environment: ports,
// storage, log file, CA, resolver. more is put into it, a line each.
func (e *Env) Global(more ...string) string {
	admin := "off"
	if e.Admin != "" {
		admin = e.Admin
	}
	return fmt.Sprintf(`{
	admin %s
	persist_config off
	http_port %d
	https_port %d
	default_bind 127.0.0.1
	storage %s
	log {
		output file %q {
			roll_disabled
		}
		format json
		level DEBUG
	}
	%s
}
`, admin, e.HTTPPort, e.HTTPSPort, cmp.Or(e.StorageModule, fmt.Sprintf("file_system %q", e.Storage)), e.LogFile, strings.Join(slices.Concat(e.Options, more), "\n\t"))
}

// Block is an issuer's block for the environment's CA; more is put into it.
func (e *Env) Block(more ...string) string {
	return e.BlockFor(e.CA, more...)
}

// Load starts Caddy with a Caddyfile, or reloads it. Caddy is stopped when the test ends.
func (e *Env) Load(caddyfile string) {
	e.T.Helper()
	if err := e.TryLoad(caddyfile); err != nil {
		e.T.Fatalf("loading the configuration: %v\n%s", err, caddyfile)
	}
}

// TryLoad is Load for configurations that may fail.
func (e *Env) TryLoad(caddyfile string) error {
	e.T.Helper()
	config, err := Adapt(caddyfile)
	if err != nil {
		return err
	}
	if !e.running {
		e.running = true
		e.T.Cleanup(e.Stop)
	}
	return caddy.Load(config, true)
}

// Stop stops Caddy.
func (e *Env) Stop() {
	if err := caddy.Stop(); err != nil {
		e.T.Errorf("stopping Caddy: %v", err)
	}
}

// Served returns the certificate that Caddy serves for a name.
func (e *Env) Served(name string) (*x509.Certificate, error) {
	dialer := &net.Dialer{Timeout: 10 * time.Second}
	conn, err := tls.DialWithDialer(dialer, "tcp", fmt.Sprintf("127.0.0.1:%d", e.HTTPSPort),
		&tls.Config{ServerName: name, InsecureSkipVerify: true}) //nolint:gosec // the chain is verified below
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0], nil
}

// Trusted returns the certificate that Caddy serves for a name if the environment's CA issued it.
func (e *Env) Trusted(name string) (*x509.Certificate, error) {
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", fmt.Sprintf("127.0.0.1:%d", e.HTTPSPort),
		&tls.Config{ServerName: name, RootCAs: e.CA.IssuanceRoots(), MinVersion: tls.VersionTLS12})
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0], nil
}

// WaitTrusted waits until Caddy serves a certificate of the environment's CA for the name.
func (e *Env) WaitTrusted(name string, within time.Duration) *x509.Certificate {
	e.T.Helper()
	var cert *x509.Certificate
	e.Eventually(within, "a certificate for "+name, func() error {
		var err error
		cert, err = e.Trusted(name)
		return err
	})
	return cert
}

// Eventually waits until cond returns nil.
func (e *Env) Eventually(within time.Duration, what string, cond func() error) {
	e.T.Helper()
	if err := Eventually(within, cond); err != nil {
		e.T.Fatalf("%s: not within %s: %v\nlog:\n%s", what, within, err, e.LogTail(60))
	}
}

// Eventually waits until cond returns nil, and returns its last error after the deadline.
func Eventually(within time.Duration, cond func() error) error {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := cond()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}

// Logs returns the entries whose message contains text.
func (e *Env) Logs(text string) []map[string]any {
	var found []map[string]any
	f, err := os.Open(e.LogFile)
	if err != nil {
		return nil
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var entry map[string]any
		if json.Unmarshal(lines.Bytes(), &entry) == nil {
			if msg, _ := entry["msg"].(string); strings.Contains(msg, text) {
				found = append(found, entry)
			}
		}
	}
	return found
}

// LogTail returns the last lines of the log that are more than debug.
func (e *Env) LogTail(n int) string {
	data, _ := os.ReadFile(e.LogFile)
	var lines []string
	for _, l := range strings.Split(string(data), "\n") {
		if !strings.Contains(l, `"level":"debug"`) {
			lines = append(lines, l)
		}
	}
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// FileStorage is Caddy's storage, for a look inside.
func (e *Env) FileStorage() *certmagic.FileStorage { return &certmagic.FileStorage{Path: e.Storage} }

// StoredCertificate reports whether storage holds a certificate for the name.
func (e *Env) StoredCertificate(name string) bool {
	found, _ := filepath.Glob(filepath.Join(e.Storage, "certificates", "*", certmagic.StorageKeys.Safe(name), "*.crt"))
	return len(found) > 0
}

// Soon is how long something may take that waits for nothing but this machine.
const Soon = 60 * time.Second

// Site is a site block with dns_persist as its only issuer, with an issuer's block as
// Block makes it.
func (e *Env) Site(names, block string) string {
	return fmt.Sprintf("%s {\n\ttls {\n\t\tissuer dns_persist %s\n\t}\n\trespond \"served by caddy\"\n}\n", names, block)
}

// Asked waits until the record of a name was asked for, and returns its value.
func (e *Env) Asked(name string) (value string) {
	e.T.Helper()
	e.Eventually(Soon, "the record of "+name+" to be asked for", func() error {
		for _, l := range e.Logs("publish this TXT record once") {
			// where a CNAME stands the record's name is where it leads
			if strings.HasSuffix(fmt.Sprint(l["name"]), "."+name) || strings.HasSuffix(fmt.Sprint(l["alias_of"]), "."+name) {
				value, _ = l["value"].(string)
				return nil
			}
		}
		return fmt.Errorf("no entry")
	})
	return value
}

// ChainRoot returns the common name of the issuer of the last certificate that Caddy
// serves for a name.
func (e *Env) ChainRoot(name string) (string, error) {
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", fmt.Sprintf("127.0.0.1:%d", e.HTTPSPort),
		&tls.Config{ServerName: name, RootCAs: e.CA.IssuanceRoots(), MinVersion: tls.VersionTLS12})
	if err != nil {
		return "", err
	}
	defer conn.Close()
	chain := conn.ConnectionState().PeerCertificates
	return chain[len(chain)-1].Issuer.CommonName, nil
}
