package command

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	"github.com/dnspersist/caddy-dnspersist/dnspersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/operator"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

// errNoConfig means that there is neither a file nor a default one.
var errNoConfig = errors.New("no configuration: name one with --config, or run the command in the directory of a Caddyfile")

// source chooses who answers.
func (r *run) source() (*client, error) {
	address := r.text("address")
	switch {
	case address != "":
		return r.running(address)
	case r.text("config") != "":
		return r.inProcess()
	}
	cfg, err := r.config()
	if err != nil && !errors.Is(err, errNoConfig) {
		return nil, err
	}
	if address, err = adminAddress(cfg); err != nil {
		return nil, err
	}
	if address != "" {
		c, err := r.running(address)
		switch {
		case err == nil:
			return c, nil
		case cfg == nil:
			return nil, fmt.Errorf("%w; and there is %w", err, errNoConfig)
		}
		r.report("%v; working from the Caddyfile and its storage", err)
	}
	return r.inProcess()
}

// running asks the Caddy at an address, which has to have this plugin and a configuration for it.
func (r *run) running(address string) (*client, error) {
	c, err := newClient(r, address)
	if err == nil {
		err = c.call(http.MethodGet, "", nil, new(operator.OverviewReply))
	}
	return c, err
}

// inProcess has the configuration answer.
func (r *run) inProcess() (*client, error) {
	off, err := r.offline()
	if err != nil {
		return nil, err
	}
	return &client{Context: r, base: "http://localhost", http: &http.Client{Transport: off.Operator}, off: off}, nil
}

// offline opens the configuration.
func (r *run) offline() (*dnspersist.Offline, error) {
	if r.text("address") != "" {
		return nil, errors.New("this works from a configuration and its storage only, not through the admin endpoint: use --config in place of --address")
	}
	cfg, err := r.config()
	if err != nil {
		return nil, err
	}
	off, err := dnspersist.Open(cfg)
	if err == nil {
		r.opened = append(r.opened, off)
	}
	return off, err
}

// config reads and adapts the configuration.
func (r *run) config() ([]byte, error) {
	if r.text("config") == "-" && slices.Contains(r.args, "-") {
		return nil, errors.New("both the configuration and the names are to come from standard input: name a file with --config")
	}
	if err := dnspersist.Quiet(); err != nil {
		return nil, err
	}
	cfg, file, _, err := caddycmd.LoadConfig(r.text("config"), r.text("adapter"))
	if err != nil {
		return nil, fmt.Errorf("loading the configuration: %w", err)
	}
	if file == "" && len(cfg) == 0 {
		return nil, errNoConfig
	}
	return cfg, nil
}

// adminAddress is where the configuration has Caddy listen for administration; empty if
// nowhere.
func adminAddress(cfg []byte) (string, error) {
	var c struct {
		Admin caddy.AdminConfig `json:"admin"`
	}
	if len(cfg) > 0 {
		if err := json.Unmarshal(cfg, &c); err != nil {
			return "", fmt.Errorf("reading the configuration: %w", err)
		}
	}
	switch {
	case c.Admin.Disabled:
		return "", nil
	case c.Admin.Listen == "":
		return caddy.DefaultAdminListen, nil
	}
	return caddy.NewReplacer().ReplaceAll(strings.TrimSpace(c.Admin.Listen), ""), nil
}

// reportUnsupported names those of all names that are left out, as they can never be validated. A
// Caddy that runs has them in its log.
func (r *run) reportUnsupported(off *dnspersist.Offline, names []string) {
	if off == nil || len(names) > 0 {
		return // the command fails for it
	}
	for _, err := range off.Unsupported() {
		r.report("warning: left out: %v", err)
	}
}

// changing opens the configuration for a command that changes something in storage or takes a
// copy of it: only as the user whose storage it is, and not beside a running Caddy that uses
// another account.
func (r *run) changing() (*dnspersist.Offline, error) {
	off, err := r.offline()
	if err == nil {
		err = off.CheckOwner()
	}
	if err == nil {
		err = r.sameAsRunning(off)
	}
	return off, err
}

// sameAsRunning compares the storage with the account of a Caddy that runs, unless a
// configuration was named.
func (r *run) sameAsRunning(off *dnspersist.Offline) error {
	if r.text("config") != "" {
		return nil
	}
	cfg, err := r.config()
	if err != nil {
		return err
	}
	address, err := adminAddress(cfg)
	if err != nil || address == "" {
		return err
	}
	running, err := r.running(address)
	if err != nil {
		return nil // none runs
	}
	reply, err := get[operator.AccountReply](running, "account", nil)
	if err == nil && len(reply.Failed) > 0 {
		err = reply.Failed[0]
	}
	if err != nil {
		return fmt.Errorf("comparing with the Caddy that runs: %w; with --config nothing is compared", err)
	}
	return off.SameAccounts(r, reply.Accounts)
}

// one opens the configuration for a command that changes an account.
func (r *run) one() (*acmepersist.Issuer, error) {
	off, err := r.changing()
	if err != nil {
		return nil, err
	}
	return off.One(r.text("ca"))
}

// names returns the names on the command line, with those on standard input in place of "-".
// They are checked before anybody is asked anything. Nil means all.
func (r *run) names() ([]string, error) {
	var given []string
	for _, arg := range r.args {
		if arg != "-" {
			given = append(given, arg)
			continue
		}
		lines, err := r.read("names", "-")
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(lines)) {
			line, _, _ = strings.Cut(strings.TrimPrefix(line, "\ufeff"), "#")
			given = append(given, strings.Fields(line)...)
		}
		if len(given) == 0 {
			// or an empty list would mean all names
			return nil, errors.New("standard input held no name")
		}
	}
	seen := make(map[string]bool)
	var names []string
	var errs []error
	for _, name := range given {
		// people paste what they see in their zone
		normal, err := record.Normalize(strings.TrimPrefix(strings.ToLower(name), record.Label+"."))
		if err != nil {
			if bare := hostOf(name); bare != "" {
				err = fmt.Errorf("%q is not a domain name: give %s", name, bare)
			}
			errs = append(errs, err)
			continue
		}
		if !seen[normal] {
			seen[normal] = true
			names = append(names, normal)
		}
	}
	return names, errors.Join(errs...)
}

// hostOf is the domain name in what was given in its place, a URL or an address with a port;
// empty if there is none.
func hostOf(name string) string {
	if _, rest, ok := strings.Cut(name, "://"); ok {
		name = rest
	}
	name, _, _ = strings.Cut(name, "/")
	if host, _, err := net.SplitHostPort(name); err == nil {
		name = host
	}
	normal, err := record.Normalize(name)
	if err != nil {
		return ""
	}
	return normal
}
