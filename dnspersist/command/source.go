package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	"github.com/dnspersist/caddy-dnspersist/dnspersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
)

// source is who answers: a Caddy that runs, or a configuration with its storage.
type source interface {
	Records(ctx context.Context, names []string) ([]dnspersist.RecordSet, error)
	// Checker prepares checks of names, all if there are none. The returned looks go on
	// where the last ones ended.
	Checker(ctx context.Context, names []string) (checker, error)
	Accounts(ctx context.Context, ca string) ([]acmepersist.AccountState, error)
	Probe(ctx context.Context, ca string) ([]acmepersist.Probe, error)
	Close() error
}

// checker looks at names again and again.
type checker interface {
	// Len is how many checks there are.
	Len() int
	// Look looks at the checks with the given numbers.
	Look(ctx context.Context, which []int, thorough bool) ([]acmepersist.Checked, error)
}

// errNoConfig says that there is neither a file nor a default one.
var errNoConfig = errors.New("no configuration: name one with --config, or run the command in the directory of a Caddyfile")

// source chooses who answers.
func (r *run) source() (source, error) {
	if address := r.text("address"); address != "" {
		if r.text("config") != "" {
			return nil, errors.New("--address asks the running Caddy and --config a configuration: use one of them")
		}
		api, err := newAPI(address)
		if err != nil {
			return nil, err
		}
		return api, api.reachable(r)
	}
	if r.text("config") != "" {
		return r.offline()
	}
	address := caddy.DefaultAdminListen
	cfg, err := r.config()
	if err != nil && !errors.Is(err, errNoConfig) {
		return nil, err
	}
	if cfg != nil {
		if address, err = adminAddress(cfg); err != nil {
			return nil, err
		}
	}
	if address != "" {
		api, err := newAPI(address)
		if err != nil {
			return nil, err
		}
		if err = api.reachable(r); err == nil {
			return api, nil
		}
		if cfg == nil {
			return nil, fmt.Errorf("%w; and there is %w", err, errNoConfig)
		}
		r.say("%v; working from the Caddyfile and its storage", err)
	}
	return r.offline()
}

// offline opens the configuration.
func (r *run) offline() (*offline, error) {
	if r.text("address") != "" {
		return nil, errors.New("this works from a configuration and its storage only, not through the admin endpoint: use --config in place of --address")
	}
	cfg, err := r.config()
	if err != nil {
		return nil, err
	}
	off, err := dnspersist.Open(cfg)
	if err != nil {
		return nil, err
	}
	return &offline{off, r}, nil
}

// config reads and adapts the configuration.
func (r *run) config() ([]byte, error) {
	if r.text("config") == "-" {
		for _, arg := range r.args {
			if arg == "-" {
				return nil, errors.New("both the configuration and the names are to come from standard input: name a file with --config")
			}
		}
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
		Admin *caddy.AdminConfig `json:"admin"`
	}
	if err := json.Unmarshal(cfg, &c); err != nil {
		return "", fmt.Errorf("reading the configuration: %w", err)
	}
	switch {
	case c.Admin == nil:
		return caddy.DefaultAdminListen, nil
	case c.Admin.Disabled:
		return "", nil
	case c.Admin.Listen == "":
		return caddy.DefaultAdminListen, nil
	}
	return caddy.NewReplacer().ReplaceAll(strings.TrimSpace(c.Admin.Listen), ""), nil
}

// offline is a configuration with its storage.
type offline struct {
	*dnspersist.Offline
	run *run
}

func (o *offline) Records(ctx context.Context, names []string) ([]dnspersist.RecordSet, error) {
	o.sayHopeless(names)
	return o.Operator.Records(ctx, names)
}

func (o *offline) Checker(ctx context.Context, names []string) (checker, error) {
	o.sayHopeless(names)
	checks, err := o.Checks(ctx, names)
	return offlineChecker(checks), err
}

// sayHopeless tells which of all names are left out, as they can never be validated. A Caddy
// that runs has said so in its log.
func (o *offline) sayHopeless(names []string) {
	if len(names) > 0 {
		return // the command fails for it
	}
	for _, err := range o.Hopeless() {
		o.run.say("warning: left out: %v", err)
	}
}

type offlineChecker []*acmepersist.Check

func (c offlineChecker) Len() int { return len(c) }

func (c offlineChecker) Look(ctx context.Context, which []int, thorough bool) ([]acmepersist.Checked, error) {
	some := make([]*acmepersist.Check, 0, len(which))
	for _, i := range which {
		some = append(some, c[i])
	}
	return dnspersist.LookAll(ctx, some, thorough), ctx.Err()
}
