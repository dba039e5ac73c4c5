package dnspersist

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddytls"
	"github.com/caddyserver/certmagic"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/managed"
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

// Open reads a configuration in Caddy's JSON and provisions its dns_persist issuers. It
// opens no log, no listener and no other app.
func Open(cfgJSON []byte) (*Offline, error) {
	cfg, err := managed.ReadConfig(cfgJSON)
	if err != nil {
		return nil, err
	}
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
	if off.Operator, err = offlineOperator(ctx, cfg); err != nil {
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

// offlineOperator provisions the issuers.
func offlineOperator(ctx caddy.Context, c managed.Config) (*Operator, error) {
	op := &Operator{settings: make(map[*Issuer]settings)}
	p, err := managed.Offline(c, func(policy managed.PolicyConfig) ([]*Issuer, error) {
		issuers, with, err := offlineIssuers(ctx, policy, c.Apps.TLS.Resolvers)
		if err != nil && policy.IsIdentity {
			return nil, fmt.Errorf("admin.identity: %w", err)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", policyNames(policy.Subjects), err)
		}
		for _, iss := range issuers {
			op.settings[iss] = with
		}
		return issuers, nil
	})
	if err != nil {
		return nil, err
	}
	if len(op.settings) == 0 {
		return nil, ErrNotConfigured
	}
	op.plan = func() managed.Plan[*Issuer] { return p }
	return op, nil
}

// offlineIssuers provisions those of a policy that are ours.
func offlineIssuers(ctx caddy.Context, policy managed.PolicyConfig, resolvers []string) ([]*Issuer, settings, error) {
	var ours []*Issuer
	with := settings{storage: ctx.Storage(), ratio: policy.RenewalWindowRatio}
	for _, raw := range policy.Issuers {
		var is struct {
			Module string `json:"module"`
		}
		if json.Unmarshal(raw, &is) != nil || is.Module != "dns_persist" {
			continue
		}
		iss, err := offlineIssuer(ctx, raw, resolvers)
		if err != nil {
			return nil, with, err
		}
		ours = append(ours, iss)
	}
	var err error
	switch {
	case policy.IsIdentity:
		// whatever the configuration's storage is: it is this server's own identity
		with.storage = caddy.DefaultStorage
	case len(ours) > 0 && len(policy.Storage) > 0:
		if with.storage, err = storageOf(ctx, policy.Storage); err != nil {
			return nil, with, fmt.Errorf("opening its storage: %w", err)
		}
	}
	return ours, with, nil
}

// offlineIssuer provisions one issuer, with what it would find in the tls app.
func offlineIssuer(ctx caddy.Context, raw json.RawMessage, resolvers []string) (*Issuer, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(raw, &fields); err != nil {
		return nil, fmt.Errorf("reading the issuer: %w", err)
	}
	delete(fields, "module")
	if len(resolvers) > 0 {
		if err := addResolvers(fields, resolvers); err != nil {
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
		return nil, fmt.Errorf("%s is not a storage", name)
	}
	return converter.CertMagicStorage()
}
