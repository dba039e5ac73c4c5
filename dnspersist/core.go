package dnspersist

import (
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddytls"
	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/internal/tuning"
)

// takeDNSSettings moves what ordinary global options have put into the embedded
// issuer's DNS challenge out of it: the embedded issuer would load a provider of
// its own, or fail without one.
func (iss *Issuer) takeDNSSettings(ctx caddy.Context) DNS {
	var dns DNS
	if iss.DNS != nil {
		dns = *iss.DNS
	}
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
		Settle:                 t.Settle,
		PropagationTimeout:     t.PropagationTimeout,
		PollInterval:           t.MinPoll,
		InlineProcessing:       tuning.Or(t.InlineProcessing, time.Minute),
		MinAskInterval:         t.MinAsk,
		NotOfferedRetry:        t.NotOffered,
		NotOfferedRenewalRetry: t.NotOfferedRenewal,
		Publishing:             iss.rt.publishing,
	}
	switch {
	case dns.DelegateTo != "":
		core.Delegation = &acmepersist.Delegation{Zone: delegationName(dns.DelegateTo), OwnLabels: dns.OwnLabels}
	case dns.OverrideDomain != "":
		core.Delegation = &acmepersist.Delegation{Name: delegationName(dns.OverrideDomain)}
	}
	if iss.PreferredChains != nil {
		core.PreferredChains = certmagic.ChainPreference{
			Smallest:       iss.PreferredChains.Smallest,
			AnyCommonName:  iss.PreferredChains.AnyCommonName,
			RootCommonName: iss.PreferredChains.RootCommonName,
		}
	}
	if len(iss.TrustedRootsPEMFiles) > 0 {
		core.CacheCap = -1 // a CA within reach has resolvers within reach
	}
	if dns.PropagationTimeout > 0 {
		core.PropagationTimeout = time.Duration(dns.PropagationTimeout)
	}
	if dns.PropagationDelay > 0 {
		core.Settle = time.Duration(dns.PropagationDelay)
	}
	switch {
	case iss.RateLimit != nil:
		core.Limiter = acmepersist.SharedLimiter(iss.CA, iss.RateLimit.Orders, time.Duration(iss.RateLimit.Window))
	case len(iss.TrustedRootsPEMFiles) == 0:
		core.Limiter = acmepersist.SharedLimiter(iss.CA, 10, 10*time.Second)
	}
	iss.setCheckers(&core, dns)
	return core
}

// setCheckers has the record looked for as it is configured.
func (iss *Issuer) setCheckers(core *acmepersist.Config, dns DNS) {
	looks := propagation.Config{Resolvers: dns.Resolvers, Exchanger: iss.rt.tuning.Exchanger, Logger: iss.rt.logger}
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
	looks.PrivateNetworks, _ = prefixes(dns.PrivateNetworks) // Validate reports what is wrong with them
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
