package dnspersist

import (
	"cmp"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	goruntime "runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
	"github.com/dnspersist/caddy-dnspersist/internal/tuning"
)

// choice is a field with a fixed set of values; the first is the default.
type choice []string

var (
	onAccountLostValues = choice{"fail", "replace"}
	policyValues        = choice{"auto", "exact", "wildcard"}
	dialectValues       = choice{"auto", "account_url", "hashed"}
	checkValues         = choice{"authoritative", "recursive", "none"}
	publishValues       = choice{acmepersist.PublishNever, acmepersist.PublishOnce, acmepersist.PublishKeep}
)

func (c choice) syntax() string { return strings.Join(c, "|") }

// check accepts the values only, no placeholder: the fields are not expanded.
func (c choice) check(value string) error {
	if slices.Contains(c, value) {
		return nil
	}
	return fmt.Errorf("%q is not one of %s", value, strings.Join(c, ", "))
}

// validation collects what is wrong with an issuer's configuration.
type validation struct {
	iss  *Issuer
	dns  DNS
	errs []error
}

// validate checks what can be known without network and storage. Placeholders are expanded.
func validate(iss *Issuer) error {
	if iss.ACMEIssuer == nil {
		return errors.New("the issuer was not provisioned")
	}
	if iss.TestCA != "" {
		return fmt.Errorf("test_ca (%s) cannot be used with dns_persist, remove it: a record names one CA and one account, a second CA would never find its own", iss.TestCA)
	}
	v := validation{iss: iss, dns: *cmp.Or(iss.DNS, new(DNS))}
	v.field("ca", iss.CA, checkDirectoryURL)
	v.field("email", iss.Email, checkEmail)
	v.field("account_url", iss.AccountURL, checkAccountURL)
	v.field("account_uri", iss.AccountURI, record.ValidAccountURI)
	v.field("issuer_domain_name", iss.IssuerDomainName, record.ValidIssuerDomainName)
	v.field("on_account_lost", iss.OnAccountLost, onAccountLostValues.check)
	v.field("policy", iss.Policy, policyValues.check)
	v.field("dialect", iss.Dialect, dialectValues.check)
	v.checkDNS()
	v.checkPublishing()
	v.checkNumbers()
	if eab := iss.ExternalAccount; eab != nil {
		if (eab.KeyID == "") != (eab.MACKey == "") {
			v.fail("external_account needs both key_id and mac_key")
		}
		// the error of the decoder would show a part of the key
		if _, err := base64.RawURLEncoding.DecodeString(eab.MACKey); err != nil {
			v.fail("external_account (eab): the MAC key is not in base64url without padding (RFC 8555 section 7.3.4): take it as the CA shows it, with - for + and _ for / and without = at its end")
		}
	}
	slices.SortFunc(v.errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errors.Join(v.errs...)
}

// fail notes that something is wrong.
func (v *validation) fail(format string, args ...any) {
	v.errs = append(v.errs, fmt.Errorf(format, args...))
}

// field checks a value, if there is one.
func (v *validation) field(name, value string, check func(string) error) {
	if value == "" {
		return
	}
	if err := check(value); err != nil {
		v.fail("%s: %w", name, err)
	}
}

// checkDNS checks how the record is looked for, and where it is.
func (v *validation) checkDNS() {
	dns := v.dns
	v.field("dns.check", dns.Check, checkValues.check)
	v.field("dns.publish", dns.Publish, publishValues.check)
	v.field("dns.delegate_to", dns.DelegateTo, checkDelegationName)
	v.field("dns.override_domain", dns.OverrideDomain, checkDelegationName)
	if dns.DelegateTo != "" && dns.OverrideDomain != "" {
		v.fail("dns.delegate_to and dns.override_domain are both set, and a record is at one place: remove one of them")
	}
	if dns.OwnLabels && dns.DelegateTo == "" {
		v.fail("dns.own_labels is set without dns.delegate_to: it is about labels below that name; set it, or remove own_labels")
	}
	for _, server := range dns.Resolvers {
		v.field("dns.resolvers", server, checkResolver)
	}
	if _, err := prefixes(dns.PrivateNetworks); err != nil {
		v.fail("dns.private_networks: %w", err)
	}
	hasResolvers := len(dns.Resolvers) > 0 || v.iss.rt != nil && v.iss.rt.globalResolvers
	if dns.Check == "recursive" && !hasResolvers {
		v.fail("dns.check is recursive, but there are no resolvers to ask: name them with resolvers")
	}
}

// longestTTL is what a TTL may be (RFC 2181 section 8).
const longestTTL = (1<<31 - 1) * time.Second

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

// checkNumbers checks times and limits.
func (v *validation) checkNumbers() {
	for name, value := range map[string]caddy.Duration{
		"acme_timeout": v.iss.ACMETimeout, "certificate_lifetime": v.iss.CertificateLifetime,
		"dns.propagation_delay": v.dns.PropagationDelay, "dns.ttl": v.dns.TTL, "persist_for": v.iss.PersistFor,
	} {
		if value < 0 {
			v.fail("%s is negative", name)
		}
	}
	if v.dns.PropagationTimeout < 0 {
		v.fail("dns.propagation_timeout is negative; to ask the CA without a look at DNS set dns.check to none")
	}
	if n := v.iss.MaxParallelOrders; n < 0 {
		v.fail("max_parallel_orders is %d: use a whole number from 1, or leave it out for 64", n)
	}
	if limit := v.iss.RateLimit; limit != nil && (limit.Orders < 1 || limit.Window <= 0) {
		v.fail("rate_limit has %d orders in a window of %d ns: both have to be more than zero", limit.Orders, int64(limit.Window))
	}
}

// unlessPlaceholder leaves a value with a placeholder to Validate.
func unlessPlaceholder(check func(string) error) func(string) error {
	return func(s string) error {
		if strings.Contains(s, "{") {
			return nil
		}
		return check(s)
	}
}

// checkDirectoryURL accepts https URLs, and http ones of this machine: an ACME account
// must not be used over a connection that others can read and change (RFC 8555 section
// 6.1).
func checkDirectoryURL(s string) error {
	u, err := absoluteURL(s)
	if err != nil {
		return err
	}
	if u.Scheme == "http" && !isLoopback(u.Hostname()) {
		return fmt.Errorf("%q is not encrypted: use https (http is for a CA on localhost only)", s)
	}
	return nil
}

// checkAccountURL accepts what a record can hold and what can be asked over HTTP.
func checkAccountURL(s string) error {
	if _, err := absoluteURL(s); err != nil {
		return err
	}
	return record.ValidAccountURI(s)
}

func absoluteURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil || (u.Scheme != "https" && u.Scheme != "http") || u.Hostname() == "" {
		return nil, fmt.Errorf("%q is not an absolute URL such as https://ca.example/directory", s)
	}
	return u, nil
}

func isLoopback(host string) bool {
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.IsLoopback()
	}
	host = strings.ToLower(host)
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}

func checkEmail(s string) error {
	if strings.Contains(s, "@") {
		return nil
	}
	return fmt.Errorf("%q is not an email address", s)
}

// prefixes reads CIDR ranges and addresses.
func prefixes(ranges []string) ([]netip.Prefix, error) {
	var all []netip.Prefix
	for _, s := range ranges {
		p, err := caddyhttp.CIDRExpressionToPrefix(s)
		if err != nil {
			return nil, fmt.Errorf("%q is not a range such as 198.51.100.0/24, nor an address", s)
		}
		if p.Bits() == 0 {
			return nil, fmt.Errorf("%q is every address there is, and no name server would be asked: name the ranges of your networks", s)
		}
		all = append(all, p.Masked())
	}
	return all, nil
}

// checkResolver accepts host[:port], with IPv6 addresses in brackets or bare.
func checkResolver(s string) error {
	if strings.Contains(s, "{") {
		return fmt.Errorf("%q: placeholders are not expanded here; in a Caddyfile {$NAME} takes the value of an environment variable", s)
	}
	bare := s
	if strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]") {
		bare = s[1 : len(s)-1]
	}
	if _, err := netip.ParseAddr(bare); err == nil {
		return nil
	}
	host := s
	if strings.Contains(s, ":") {
		var port string
		var err error
		host, port, err = net.SplitHostPort(s)
		if err != nil {
			return fmt.Errorf("%q is not a DNS server as host or host:port", s)
		}
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return fmt.Errorf("%q has no port from 1 to 65535", s)
		}
	}
	if host == "" || strings.ContainsAny(host, "/@?# \t,;{}") {
		return fmt.Errorf("%q is not a DNS server as host or host:port", s)
	}
	return nil
}

// longestDelegationName is what leaves room for a label of record.DelegationLabel.
const longestDelegationName = 253 - 27

// DelegationName checks a name below which validation names are delegated, or to which, and
// returns it as DNS names are compared.
func DelegationName(s string) (string, error) {
	if err := checkDelegationName(s); err != nil {
		return "", err
	}
	return record.Normalize(s)
}

// checkDelegationName accepts the name of a zone or of a target in one.
func checkDelegationName(s string) error {
	if strings.Contains(s, "{") {
		return fmt.Errorf("%q: placeholders are not expanded here; in a Caddyfile {$NAME} takes the value of an environment variable", s)
	}
	name := strings.TrimSuffix(s, ".")
	if _, err := record.Normalize(name); err != nil || record.IsWildcard(name) || !strings.Contains(name, ".") {
		return fmt.Errorf("%q is not the name of a zone of yours, or within one, such as certs.example.net", s)
	}
	if len(name) > longestDelegationName {
		return fmt.Errorf("%q has %d octets, over %d: labels below it have no room", s, len(name), longestDelegationName)
	}
	if strings.HasPrefix(name, record.Label+".") {
		return fmt.Errorf("%q begins with %s: name a zone of yours, the validation names of others are to lead into it", s, record.Label)
	}
	return nil
}

// fileSecret is Caddy's placeholder for the content of a file.
var fileSecret = regexp.MustCompile(`\{file\.([^{}]+)\}`)

// literalSecrets lists the options that hold a secret in the configuration itself, with what
// the secret is. It is called before placeholders are expanded.
func literalSecrets(iss *Issuer) map[string]string {
	found := make(map[string]string)
	if strings.Contains(iss.AccountKey, "-----BEGIN") {
		found["account_key"] = "a private key"
	}
	if eab := iss.ExternalAccount; eab != nil && eab.MACKey != "" && !strings.Contains(eab.MACKey, "{") {
		found["eab"] = "the MAC key of the account at the CA"
	}
	return found
}

// secretFiles lists the files that secrets are read from.
func secretFiles(iss *Issuer) []string {
	texts := []string{iss.AccountKey}
	if iss.ExternalAccount != nil {
		texts = append(texts, iss.ExternalAccount.MACKey)
	}
	var files []string
	for _, text := range texts {
		for _, match := range fileSecret.FindAllStringSubmatch(text, -1) {
			files = append(files, match[1])
		}
	}
	return files
}

// warnSecrets names options that hold secrets for anybody who reads the configuration.
func warnSecrets(logger *zap.Logger, found map[string]string) {
	for option, what := range found {
		logger.Warn(option+" holds "+what+" in the configuration, where anybody who reads the configuration finds it; use a placeholder such as {file./path/to/secret} or {env.NAME}",
			zap.String("option", option))
	}
}

// warnSecretFiles names files with secrets that other users of this machine can read.
func (a *App) warnSecretFiles(files []string) {
	for _, path := range files {
		if others := readableByOthers(path); others != "" {
			a.logger.Warn("a file with a secret can be read by other users of this machine; take that right from them (chmod 600)",
				zap.String("file", path), zap.String("mode", others))
		}
	}
}

// readableByOthers returns the mode of a file that everybody can read; else nothing. Where
// modes mean nothing there is nothing to log, and groups are often made for that.
func readableByOthers(path string) string {
	if goruntime.GOOS == "windows" {
		return ""
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm()&0o004 == 0 {
		return ""
	}
	return fmt.Sprintf("%#o", info.Mode().Perm())
}
