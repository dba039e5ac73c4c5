package dnspersist

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddytls"
	"github.com/caddyserver/certmagic"
)

// ErrNotConfigured says that a configuration has no issuer of ours.
var ErrNotConfigured = errors.New("the configuration has no dns_persist issuer: add the directive dns_persist to a site, or cert_issuer dns_persist to the global options")

// Offline is a configuration that no server runs: its dns_persist issuers with their
// storage, and nothing else of it, for commands.
type Offline struct {
	*Operator
	ctx    caddy.Context
	cancel context.CancelCauseFunc
	// watches is the app that the issuers have asked for. It is never started.
	watches *App
}

// Close gives up what Open has provisioned.
func (o *Offline) Close() error {
	o.cancel(errors.New("the command has ended"))
	return o.watches.Cleanup()
}

// config is what is read of a configuration in JSON.
type config struct {
	Storage json.RawMessage `json:"storage"`
	Admin   struct {
		Identity struct {
			Identifiers []string          `json:"identifiers"`
			Issuers     []json.RawMessage `json:"issuers"`
		} `json:"identity"`
	} `json:"admin"`
	Apps struct {
		TLS struct {
			Resolvers    []string                   `json:"resolvers"`
			Certificates map[string]json.RawMessage `json:"certificates"`
			ECH          struct {
				Configs []struct {
					PublicName string `json:"public_name"`
				} `json:"configs"`
			} `json:"encrypted_client_hello"`
			Automation struct {
				Policies []policyConfig `json:"policies"`
			} `json:"automation"`
		} `json:"tls"`
		HTTP httpConfig `json:"http"`
	} `json:"apps"`

	// clients are the names of client certificates that a proxy of whichever app asks for.
	clients []string
}

type policyConfig struct {
	Subjects           []string          `json:"subjects"`
	Issuers            []json.RawMessage `json:"issuers"`
	Storage            json.RawMessage   `json:"storage"`
	RenewalWindowRatio float64           `json:"renewal_window_ratio"`
}

// Open reads a configuration in Caddy's JSON and provisions its dns_persist issuers. It
// opens no log, no listener and no other app.
func Open(cfgJSON []byte) (*Offline, error) {
	var cfg config
	if err := json.Unmarshal(cfgJSON, &cfg); err != nil {
		return nil, fmt.Errorf("reading the configuration: %w; with a file in another format use --adapter", err)
	}
	cfg.clients = clientNames(cfgJSON)
	reduced := &caddy.Config{
		Logging: quietLogs(), StorageRaw: cfg.Storage,
		AppsRaw: caddy.ModuleMap{"dns_persist": json.RawMessage(`{}`)},
	}
	ctx, err := caddy.ProvisionContext(reduced)
	if err != nil {
		return nil, fmt.Errorf("opening the storage of the configuration: %w", err)
	}
	// the context has to be cancelled to clean its modules up, and Caddy offers no other way
	ctx, cancel := caddy.NewContextWithCause(ctx)
	app, err := ctx.App("dns_persist")
	if err != nil {
		cancel(err)
		return nil, err
	}
	off := &Offline{ctx: ctx, cancel: cancel, watches: app.(*App)}
	if off.Operator, err = cfg.operator(ctx); err != nil {
		return nil, errors.Join(err, off.Close())
	}
	return off, nil
}

// Quiet keeps Caddy's log out of the way of a command's own words: errors are returned. It is
// for processes that run no Caddy.
func Quiet() error {
	_, err := caddy.ProvisionContext(&caddy.Config{Logging: quietLogs()})
	return err
}

func quietLogs() *caddy.Logging {
	level := caddy.CustomLog{}
	level.Level = "PANIC"
	return &caddy.Logging{Logs: map[string]*caddy.CustomLog{"default": &level}}
}

// operator provisions the issuers.
func (c config) operator(ctx caddy.Context) (*Operator, error) {
	p := plan{forced: make(map[string]bool)}
	op := &Operator{settings: make(map[*Issuer]settings)}
	global := ctx.Storage()
	for i, policy := range c.Apps.TLS.Automation.Policies {
		one := planned{subjects: asciiAll(replaceAll(policy.Subjects))}
		issuers, err := c.issuers(ctx, policy.Issuers)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", policyNames(policy.Subjects), err)
		}
		for _, iss := range issuers {
			storage := global
			if len(policy.Storage) > 0 {
				if storage, err = storageOf(ctx, policy.Storage); err != nil {
					return nil, fmt.Errorf("storage of automation policy %d: %w", i, err)
				}
			}
			op.settings[iss] = settings{storage: storage, ratio: policy.RenewalWindowRatio}
			one.issuers = append(one.issuers, iss)
		}
		p.policies = append(p.policies, one)
	}
	issuers, err := c.issuers(ctx, c.Admin.Identity.Issuers)
	if err != nil {
		return nil, fmt.Errorf("admin.identity: %w", err)
	}
	p.identity = planned{subjects: replaceAll(c.Admin.Identity.Identifiers), issuers: issuers}
	for _, iss := range issuers {
		// whatever the configuration's storage is: it is this server's own identity
		op.settings[iss] = settings{storage: caddy.DefaultStorage}
	}
	if len(op.settings) == 0 {
		return nil, ErrNotConfigured
	}
	for _, n := range replaceAll(automateOf(c.Apps.TLS.Certificates["automate"])) {
		p.names, p.forced[n] = append(p.names, n), true
	}
	loaded := loadedFrom(c.Apps.TLS.Certificates)
	for _, ech := range c.Apps.TLS.ECH.Configs {
		if n := asciiName(strings.TrimSpace(ech.PublicName)); n != "" && !loaded(n) {
			p.names, p.forced[n] = append(p.names, n), true
		}
	}
	p.names = append(p.names, c.clients...)
	p = p.site(c.Apps.HTTP.hosts(loaded)).indexed()
	op.plan = func() plan { return p }
	return op, nil
}

// issuers provisions those of ours.
func (c config) issuers(ctx caddy.Context, all []json.RawMessage) ([]*Issuer, error) {
	var ours []*Issuer
	for _, raw := range all {
		var is struct {
			Module string `json:"module"`
		}
		if json.Unmarshal(raw, &is) != nil || is.Module != "dns_persist" {
			continue
		}
		iss, err := c.issuer(ctx, raw)
		if err != nil {
			return nil, err
		}
		ours = append(ours, iss)
	}
	return ours, nil
}

// issuer provisions one issuer, with what it would find in the tls app.
func (c config) issuer(ctx caddy.Context, raw json.RawMessage) (*Issuer, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(raw, &fields); err != nil {
		return nil, fmt.Errorf("reading the issuer: %w", err)
	}
	delete(fields, "module")
	if len(c.Apps.TLS.Resolvers) > 0 {
		if err := addResolvers(fields, c.Apps.TLS.Resolvers); err != nil {
			return nil, err
		}
	}
	raw, err := json.Marshal(fields)
	if err != nil {
		return nil, fmt.Errorf("reading the issuer: %w", err)
	}
	module, err := ctx.LoadModuleByID("tls.issuance.dns_persist", raw)
	if err != nil {
		return nil, err
	}
	return module.(*Issuer), nil
}

// addResolvers gives an issuer without resolvers those of the tls app.
func addResolvers(fields map[string]json.RawMessage, resolvers []string) error {
	var dns DNS
	if raw, ok := fields["dns"]; ok {
		if err := json.Unmarshal(raw, &dns); err != nil {
			return fmt.Errorf("reading dns of the issuer: %w", err)
		}
	}
	var challenges struct {
		DNS *caddytls.DNSChallengeConfig `json:"dns"`
	}
	if raw, ok := fields["challenges"]; ok {
		_ = json.Unmarshal(raw, &challenges) // provisioning says what is wrong with it
	}
	if len(dns.Resolvers) > 0 || challenges.DNS != nil && len(challenges.DNS.Resolvers) > 0 {
		return nil
	}
	dns.Resolvers = resolvers
	raw, err := json.Marshal(dns)
	if err != nil {
		return fmt.Errorf("writing dns of the issuer: %w", err)
	}
	fields["dns"] = raw
	return nil
}

// storageOf loads a policy's own storage.
func storageOf(ctx caddy.Context, raw json.RawMessage) (certmagic.Storage, error) {
	var fields map[string]json.RawMessage
	var name string
	if err := json.Unmarshal(raw, &fields); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(fields["module"], &name); err != nil {
		return nil, fmt.Errorf("reading the name of the storage module: %w", err)
	}
	delete(fields, "module")
	rest, err := json.Marshal(fields)
	if err != nil {
		return nil, err
	}
	module, err := ctx.LoadModuleByID("caddy.storage."+name, rest)
	if err != nil {
		return nil, err
	}
	converter, ok := module.(caddy.StorageConverter)
	if !ok {
		return nil, fmt.Errorf("%s is no storage", name)
	}
	return converter.CertMagicStorage()
}
