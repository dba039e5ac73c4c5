package dnspersist

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/libdns/libdns"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/foreign"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/publish"
	"github.com/dnspersist/caddy-dnspersist/internal/tuning"
)

// longestTTL is what a TTL may be (RFC 2181 section 8).
const longestTTL = (1<<31 - 1) * time.Second

// loadProvider loads the DNS provider, if one is configured: with the issuer, or where the
// global option acme_dns puts it. A credential is no consent: the latter is left alone
// unless publish says otherwise.
func (iss *Issuer) loadProvider(ctx caddy.Context, t tuning.Values) (*acmepersist.Publishing, error) {
	dns := DNS{}
	if iss.DNS != nil {
		dns = *iss.DNS
	}
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
	if dns.Publish != "" {
		mode = dns.Publish
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
		Provider: appender, Mode: mode, TTL: time.Duration(dns.TTL), PersistFor: time.Duration(iss.PersistFor),
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

// checkPublishing checks the options of publishing.
func (v *validation) checkPublishing() {
	dns, persistFor := v.dns, time.Duration(v.iss.PersistFor)
	mode, shortest := acmepersist.PublishNever, 24*time.Hour
	if rt := v.iss.rt; rt != nil {
		shortest = tuning.Or(rt.tuning.ShortestPersistFor, shortest)
		if rt.publishing != nil {
			mode = rt.publishing.Mode
		}
	}
	has := v.iss.rt != nil && v.iss.rt.publishing != nil
	if (dns.Publish == acmepersist.PublishOnce || dns.Publish == acmepersist.PublishKeep) && !has {
		v.fail("dns.publish is %s, but no DNS provider is configured: add dns <provider> to the block, or acme_dns <provider> to the global options (acme_dns without a provider means that of the global option dns, which a plugin cannot reach but by dns in the directive dns_persist)", dns.Publish)
	}
	if mode != acmepersist.PublishNever && dns.Check != "" && dns.Check != "authoritative" {
		v.fail("dns.check is %s, but publishing needs authoritative: only the authoritative servers show what is published at a name, and nothing is written blindly", dns.Check)
	}
	if persistFor > 0 {
		if mode != acmepersist.PublishKeep {
			v.fail("persist_for needs dns.publish keep and a DNS provider: a record that nobody renews would end the site with it")
		}
		if persistFor < shortest {
			v.fail("persist_for is %s, less than %s: a record has to outlive several renewals", persistFor, shortest)
		}
	}
	switch ttl := time.Duration(dns.TTL); {
	case ttl > longestTTL:
		v.fail("dns.ttl is %s, more than DNS can express", ttl)
	case ttl > 0 && ttl%time.Second != 0:
		v.fail("dns.ttl is %s: it has to be whole seconds", ttl)
	}
}
