package dnspersist

import (
	"cmp"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddytls"
	"github.com/caddyserver/certmagic"
	"github.com/libdns/libdns"
	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/foreign"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/publish"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
	"github.com/dnspersist/caddy-dnspersist/internal/tuning"
)

// takeDNSSettings moves what ordinary global options have put into the embedded
// issuer's DNS challenge out of it: the embedded issuer would load a provider of
// its own, or fail without one.
func (iss *Issuer) takeDNSSettings(ctx caddy.Context) DNS {
	dns := *cmp.Or(iss.DNS, new(DNS))
	if iss.Challenges != nil && iss.Challenges.DNS != nil {
		if len(dns.Resolvers) == 0 {
			dns.Resolvers = iss.Challenges.DNS.Resolvers
		}
		iss.Challenges.DNS = nil
	}
	if len(dns.Resolvers) == 0 {
		if app, err := ctx.AppIfConfigured("tls"); err == nil {
			dns.Resolvers = app.(*caddytls.TLS).Resolvers
		}
	}
	return dns
}

// newCore translates the configuration for acmepersist.
func (iss *Issuer) newCore(dns DNS) acmepersist.Config {
	t := iss.rt.tuning
	core := acmepersist.Config{
		CA:                     iss.CA,
		PrivateCA:              len(iss.TrustedRootsPEMFiles) > 0,
		Logger:                 iss.rt.logger,
		Transport:              iss.rt.transport,
		UserAgent:              "caddy-dnspersist " + certmagic.UserAgent,
		Email:                  iss.Email,
		AccountKeyPEM:          iss.AccountKey,
		AccountURL:             iss.AccountURL,
		AccountURI:             iss.AccountURI,
		OnAccountLost:          iss.OnAccountLost,
		ExternalAccount:        iss.ExternalAccount,
		Profile:                iss.Profile,
		CertificateLifetime:    time.Duration(iss.CertificateLifetime),
		Timeout:                time.Duration(iss.ACMETimeout),
		Policy:                 iss.Policy,
		Dialect:                iss.Dialect,
		IssuerDomainName:       iss.IssuerDomainName,
		Grace:                  t.Grace,
		Settle:                 cmp.Or(time.Duration(dns.PropagationDelay), t.Settle),
		PropagationTimeout:     cmp.Or(time.Duration(dns.PropagationTimeout), t.PropagationTimeout),
		PollInterval:           t.MinPoll,
		InlineProcessing:       tuning.Or(t.InlineProcessing, time.Minute),
		MinAskInterval:         t.MinAsk,
		NotOfferedRetry:        t.NotOffered,
		NotOfferedRenewalRetry: t.NotOfferedRenewal,
		Publishing:             iss.rt.publishing,
		Lanes:                  iss.rt.app.shared.lanes,
		MaxParallelOrders:      iss.MaxParallelOrders,
		InlineQueue:            t.InlineQueue,
	}
	if dns.DelegateTo != "" || dns.OverrideDomain != "" {
		zone, _ := record.Normalize(dns.DelegateTo) // Validate reports what is wrong with them
		name, _ := record.Normalize(dns.OverrideDomain)
		core.Delegation = &acmepersist.Delegation{Zone: zone, Name: name, OwnLabels: dns.OwnLabels}
	}
	if iss.PreferredChains != nil {
		core.PreferredChains = certmagic.ChainPreference{
			Smallest:       iss.PreferredChains.Smallest,
			AnyCommonName:  iss.PreferredChains.AnyCommonName,
			RootCommonName: iss.PreferredChains.RootCommonName,
		}
	}
	if orders, window := paceOf(iss); orders > 0 {
		core.Window = acmepersist.OrderWindow{Orders: orders, Per: window}
	}
	iss.setCheckers(&core, dns)
	return core
}

// setCheckers has the record looked for as it is configured.
func (iss *Issuer) setCheckers(core *acmepersist.Config, dns DNS) {
	looks := propagation.Config{Resolvers: dns.Resolvers, Exchanger: iss.rt.tuning.Exchanger, Logger: iss.rt.logger, Asked: iss.rt.app.shared.metrics.Asked}
	if dns.Check == "none" {
		iss.rt.logger.Warn("check is none: the CA is asked without a look whether the record is published, and each failure counts against its rate limits",
			zap.String("ca", iss.CA))
		// CAA records and a record's end are no matter of publishing, and cost no wait
		looks.Mode = propagation.ModeRecursive
		core.CAAChecker = propagation.NewChecker(looks)
		return
	}
	looks.Mode, looks.Grace, looks.Settle = propagation.ModeAuthoritative, core.Grace, core.Settle
	if dns.Check == "recursive" {
		looks.Mode = propagation.ModeRecursive
	}
	// tenants control their NS records; a public CA would not ask such servers either
	looks.AllowPrivate = dns.AllowPrivateNS || len(iss.TrustedRootsPEMFiles) > 0
	looks.PrivateNetworks, _ = prefixes(slices.Concat(iss.rt.app.PrivateNetworks, dns.PrivateNetworks)) // Validate reports what is wrong with them
	if looks.Mode == propagation.ModeAuthoritative && !looks.AllowPrivate {
		iss.rt.insideResolvers = insideOnly(dns.Resolvers)
	}
	core.Checker = propagation.NewChecker(looks)
}

// insideOnly returns those of resolvers that only this network can ask.
func insideOnly(resolvers []string) []string {
	var inside []string
	for _, r := range resolvers {
		host, _, err := net.SplitHostPort(r)
		if err != nil {
			host = strings.Trim(r, "[]")
		}
		if addr, err := netip.ParseAddr(host); err == nil && propagation.IsPrivate(addr) {
			inside = append(inside, r)
		}
	}
	return inside
}

// newTransport makes the issuer's own connections to the CA, over the configured
// proxy and with the configured roots. The embedded issuer's cannot be reached.
func (iss *Issuer) newTransport(ctx caddy.Context) (*http.Transport, error) {
	transport := acmepersist.NewTransport()
	if len(iss.NetworkProxyRaw) > 0 {
		// loading a module clears its raw form, which the embedded issuer needs again
		raw := iss.NetworkProxyRaw
		mod, err := ctx.LoadModule(iss.ACMEIssuer, "NetworkProxyRaw")
		iss.NetworkProxyRaw = raw
		if err != nil {
			return nil, fmt.Errorf("loading network_proxy module: %w", err)
		}
		producer, ok := mod.(caddy.ProxyFuncProducer)
		if !ok {
			return nil, fmt.Errorf("network_proxy module %T makes no proxy function", mod)
		}
		transport.Proxy = producer.ProxyFunc()
	}
	return transport, trust(transport, iss.TrustedRootsPEMFiles)
}

// trust has the transport trust the roots of files, if there are any, and no others.
func trust(transport *http.Transport, files []string) error {
	if len(files) == 0 {
		return nil
	}
	pool := x509.NewCertPool()
	for _, file := range files {
		pem, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("loading trusted root '%s': %w", file, err)
		}
		if !pool.AppendCertsFromPEM(pem) {
			return fmt.Errorf("loading trusted root '%s': there is no PEM certificate in it", file)
		}
	}
	if transport.TLSClientConfig == nil {
		transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	transport.TLSClientConfig.RootCAs = pool
	return nil
}

// fingerprint identifies the configuration of the issuer, secrets included, without
// showing them.
func fingerprint(iss *Issuer) string {
	data, err := json.Marshal(iss)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:12])
}

// loadProvider loads the DNS provider, if one is configured: with the issuer, or where the
// global option acme_dns puts it. A credential is no consent: the latter is left alone
// unless publish asks for it.
func (iss *Issuer) loadProvider(ctx caddy.Context, t tuning.Values) (*acmepersist.Publishing, error) {
	dns := *cmp.Or(iss.DNS, new(DNS))
	raw, mode := dns.ProviderRaw, acmepersist.PublishKeep
	if len(raw) == 0 {
		mode = acmepersist.PublishNever
		if iss.Challenges != nil && iss.Challenges.DNS != nil {
			raw = iss.Challenges.DNS.ProviderRaw
		}
	}
	if len(raw) == 0 {
		return nil, nil
	}
	var named struct {
		Name string `json:"name"`
	}
	_ = json.Unmarshal(raw, &named)
	secrets := secretsOf(raw)
	// loading clears the raw form, by which configurations are compared
	holder := &DNS{ProviderRaw: raw}
	module, err := ctx.LoadModule(holder, "ProviderRaw")
	if err != nil {
		return nil, fmt.Errorf("loading the DNS provider %s: %s", named.Name, foreign.Text(publish.Redact(err.Error(), secrets)))
	}
	appender, ok := module.(libdns.RecordAppender)
	if !ok {
		return nil, fmt.Errorf("the DNS provider %s cannot add records: choose another one, or publish by hand", named.Name)
	}
	p := &acmepersist.Publishing{
		Provider: appender, Mode: cmp.Or(dns.Publish, mode), TTL: time.Duration(dns.TTL), PersistFor: time.Duration(iss.PersistFor),
		AllowShadowing: dns.AllowShadowing, Interval: t.PublishInterval, Retry: t.PublishRetry, RetireAfter: t.RetireAfter,
		Secrets: secrets,
	}
	if expanded, err := json.Marshal(module); err == nil {
		p.Secrets = append(p.Secrets, secretsOf(expanded)...) // placeholders have values now
		raw = expanded
	}
	p.Account = named.Name + " " + fmt.Sprintf("%x", sha256.Sum256(raw))
	return p, nil
}
