package dnspersist

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/libdns/libdns"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/foreign"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/publish"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddytls"
	"github.com/caddyserver/certmagic"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/managed"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/operator"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

// Offline is a configuration that no server runs: its dns_persist issuers with their
// storage, and nothing else of it, for commands.
type Offline struct {
	*operator.Operator
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
		AppsRaw: caddy.ModuleMap{"dns_persist": cfg.Apps.DNSPersist},
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
func offlineOperator(ctx caddy.Context, c *managed.Config) (*operator.Operator, error) {
	var p managed.Plan[operator.Issuer]
	var err error
	p, err = managed.Offline(c, func(policy managed.PolicyConfig) ([]operator.Issuer, error) {
		issuers, err := offlineIssuers(ctx, policy, c.Apps.TLS.Resolvers)
		if err != nil && policy.IsIdentity {
			return nil, fmt.Errorf("admin.identity: %w", err)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", policyNames(policy.SubjectsRaw), err)
		}
		var all []operator.Issuer
		for _, iss := range issuers {
			iss.isWide = func(validationName string) bool {
				below := p.Below(strings.TrimPrefix(validationName, record.Label+"."))
				return slices.ContainsFunc(below, func(other operator.Issuer) bool { return other.Directory() == iss.CA })
			}
			all = append(all, iss)
		}
		return all, nil
	})
	if err != nil {
		return nil, err
	}
	if len(p.Issuers()) == 0 {
		return nil, operator.ErrNotConfigured
	}
	return &operator.Operator{Plan: func() managed.Plan[operator.Issuer] { return p }}, nil
}

// offline is an issuer that no server runs, for an operator. It has what CertMagic's configuration
// would give it.
type offline struct {
	*Issuer
	storage certmagic.Storage
	ratio   float64
	isWide  func(validationName string) bool
	made    *acmepersist.Issuer
}

// Directory implements operator.Issuer.
func (o *offline) Directory() string { return o.CA }

// Identity implements operator.Issuer.
func (o *offline) Identity() string { return identity(o.Issuer, o.storage) }

// ACME implements operator.Issuer.
func (o *offline) ACME() (*acmepersist.Issuer, error) {
	if o.made == nil {
		core := o.rt.core
		core.Storage, core.RenewalWindowRatio = o.storage, o.ratio
		core.Wildcard = o.isWide
		o.made = acmepersist.New(core)
	}
	return o.made, nil
}

// Refuses implements operator.Issuer.
func (o *offline) Refuses(name string) error { return o.refuses(name) }

// IsOnDemand implements operator.Issuer: no visitor asks for a name where no server runs.
func (o *offline) IsOnDemand() bool { return false }

// offlineIssuers provisions those of a policy that are ours.
func offlineIssuers(ctx caddy.Context, policy managed.PolicyConfig, resolvers []string) ([]*offline, error) {
	var ours []*offline
	for _, raw := range policy.IssuersRaw {
		var is struct {
			Module string `json:"module"`
		}
		if json.Unmarshal(raw, &is) != nil || is.Module != "dns_persist" {
			continue
		}
		iss, err := offlineIssuer(ctx, raw, resolvers)
		if err != nil {
			return nil, err
		}
		o := &offline{Issuer: iss, storage: ctx.Storage(), ratio: policy.RenewalWindowRatio}
		switch {
		case policy.IsIdentity: // it is this server's own, whatever the configuration's storage is
			o.storage = caddy.DefaultStorage
		case len(policy.StorageRaw) > 0:
			if o.storage, err = storageOf(ctx, policy.StorageRaw); err != nil {
				return nil, fmt.Errorf("opening its storage: %w", err)
			}
		}
		ours = append(ours, o)
	}
	return ours, nil
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
		_ = json.Unmarshal(raw, &challenges) // provisioning reports what is wrong with it
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

// Provider is a DNS provider for one run of a command: it is never part of a configuration.
type Provider struct {
	libdns.RecordAppender
	// Secrets are all strings of its configuration that could be one.
	Secrets []string
}

// shortestSecret is how long a string of a provider's configuration must be to be redacted:
// shorter ones would garble every error and protect nothing.
const shortestSecret = 4

// Provider loads a provider from its JSON, a `dns.providers.*` module with its `name`.
func (o *Offline) Provider(raw []byte) (Provider, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(raw, &fields); err != nil {
		// the cause could quote a secret
		return Provider{}, errors.New(`the provider is no JSON object such as {"name": "rfc2136", "server": "…"}`)
	}
	var name string
	if json.Unmarshal(fields["name"], &name) != nil || name == "" {
		return Provider{}, errors.New(`the provider has no "name": it is that of a dns.providers module, such as "cloudflare"`)
	}
	delete(fields, "name")
	rest, err := json.Marshal(fields)
	if err != nil {
		return Provider{}, fmt.Errorf("reading the provider %s: %w", name, err)
	}
	p := Provider{Secrets: secretsOf(rest)}
	module, err := o.ctx.LoadModuleByID("dns.providers."+name, rest)
	if err != nil {
		return Provider{}, fmt.Errorf("loading the provider %s: %s; `caddy list-modules` shows which are built in", name, foreign.Text(publish.Redact(err.Error(), p.Secrets)))
	}
	appender, ok := module.(libdns.RecordAppender)
	if !ok {
		return Provider{}, fmt.Errorf("the provider %s cannot add records", name)
	}
	p.RecordAppender = appender
	return p, nil
}

// secretsOf lists the strings in a provider's JSON, but not the name of its module: errors
// have to name it.
func secretsOf(raw json.RawMessage) []string {
	var v any
	if json.Unmarshal(raw, &v) != nil {
		return nil
	}
	if fields, ok := v.(map[string]any); ok {
		delete(fields, "name")
	}
	var all []string
	var walk func(any)
	walk = func(v any) {
		switch v := v.(type) {
		case string:
			if len(v) >= shortestSecret {
				all = append(all, v)
			}
		case []any:
			for _, one := range v {
				walk(one)
			}
		case map[string]any:
			for _, one := range v {
				walk(one)
			}
		}
	}
	walk(v)
	return all
}

// ProbeDirectory asks the directory of any CA whether it offers the challenge, without a
// configuration. Without root files the system's roots are trusted.
func ProbeDirectory(ctx context.Context, directory string, rootFiles []string) (acmepersist.Probe, error) {
	if err := checkDirectoryURL(directory); err != nil {
		return acmepersist.Probe{}, err
	}
	transport := acmepersist.NewTransport()
	defer transport.CloseIdleConnections()
	if err := trust(transport, rootFiles); err != nil {
		return acmepersist.Probe{}, err
	}
	// nothing is known of the CA, and nothing is to be kept
	dir, err := os.MkdirTemp("", "dns-persist-probe")
	if err != nil {
		return acmepersist.Probe{}, fmt.Errorf("probing %s: %w", directory, err)
	}
	defer os.RemoveAll(dir)
	return acmepersist.New(acmepersist.Config{
		CA: directory, Transport: transport, Storage: &certmagic.FileStorage{Path: dir},
		UserAgent: "caddy-dnspersist " + certmagic.UserAgent,
	}).Probe(ctx)
}
