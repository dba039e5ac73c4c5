package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/miekg/dns"

	"github.com/dnspersist/caddy-dnspersist/internal/lab"
)

// bindKey may update the zone of a BIND.
const (
	bindKey    = "bench"
	bindSecret = "YSBzZWNyZXQgZm9yIHRoZSBiZW5jaG1hcmtzIG9ubHkh"
)

// bind is a BIND 9 with one zone, which may be updated with bindKey.
type bind struct {
	addr string
	cmd  *exec.Cmd
	held io.Closer // it ends when this is closed
}

// bindProgram is where BIND is, "" if it is not installed.
func bindProgram() string {
	for _, name := range []string{"named", "/usr/sbin/named", "/usr/local/sbin/named"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

// untilClosed runs a program until the standard input ends: with whoever has started it, however that ends.
const untilClosed = `"$@" & read -r _; kill -KILL $!; wait`

// startBIND starts one with its files in a folder.
func startBIND(dir, zone string) (*bind, error) {
	port, err := lab.FreePort()
	if err != nil {
		return nil, err
	}
	config := fmt.Sprintf(`options {
	directory %[1]q; pid-file none; session-keyfile %[2]q; managed-keys-directory %[1]q;
	listen-on port %[3]d { 127.0.0.1; }; listen-on-v6 { none; };
	recursion no; dnssec-validation no; empty-zones-enable no; notify no;
};
controls { };
key %[4]q { algorithm hmac-sha256; secret %[5]q; };
zone %[6]q { type primary; file %[7]q; allow-update { key %[4]q; }; };
`, dir, filepath.Join(dir, "session.key"), port, bindKey, bindSecret, zone, zone+".zone")
	content := fmt.Sprintf("$ORIGIN %[1]s.\n$TTL 60\n@ IN SOA ns1 hostmaster 1 3600 600 86400 5\n@ NS ns1\nns1 A 127.0.0.1\n", zone)
	file := filepath.Join(dir, "named.conf")
	if err := errors.Join(os.WriteFile(file, []byte(config), 0o600), os.WriteFile(filepath.Join(dir, zone+".zone"), []byte(content), 0o600)); err != nil {
		return nil, err
	}
	b := &bind{addr: fmt.Sprintf("127.0.0.1:%d", port), cmd: exec.Command("/bin/sh", "-c", untilClosed, "sh", bindProgram(), "-g", "-c", file)}
	var out bytes.Buffer
	b.cmd.Dir, b.cmd.Stdout, b.cmd.Stderr = dir, &out, &out
	if b.held, err = b.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := b.cmd.Start(); err != nil {
		return nil, err
	}
	err = until(func() error {
		answer, _, err := new(dns.Client).Exchange(new(dns.Msg).SetQuestion(dns.Fqdn(zone), dns.TypeSOA), b.addr)
		if err == nil && answer.Rcode != dns.RcodeSuccess {
			err = errors.New(dns.RcodeToString[answer.Rcode])
		}
		return err
	}, 20*time.Second)
	if err != nil {
		b.close()
		return nil, fmt.Errorf("BIND does not answer: %w\n%s", err, out.Bytes())
	}
	return b, nil
}

func (b *bind) close() {
	_ = b.held.Close()
	_ = b.cmd.Wait()
}
