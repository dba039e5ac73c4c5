package dnspersist

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2/caddyconfig"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddytls"
	"github.com/mholt/acmez/v3/acme"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/operator"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

// UnmarshalCaddyfile sets up the issuer from Caddyfile tokens. Syntax:
//
//	... dns_persist [<directory_url>] {
//	    dir <directory_url>
//	    email <email>
//	    profile <name>
//	    timeout <duration>
//	    account_key <pem>
//	    eab <key_id> <mac_key>
//	    trusted_roots <pem_files...>
//	    preferred_chains [smallest] {
//	        root_common_name <common_names...>
//	        any_common_name  <common_names...>
//	    }
//	    lifetime <duration>
//	    account_url <url>
//	    account_uri <uri>
//	    on_account_lost fail|replace
//	    resolvers <servers...>
//	    allow_private_ns
//	    private_networks <ranges...>
//	    check authoritative|recursive|none
//	    propagation_timeout <duration>
//	    propagation_delay <duration>
//	    policy auto|exact|wildcard
//	    dialect auto|account_url|hashed
//	    issuer_domain_name <name>
//	    rate_limit <orders> <window>
//	    max_parallel_orders <n>
//	    dns [<provider> [<options...>]] {
//	        <the provider's options>
//	    }
//	    dns_ttl <duration>
//	    publish never|once|keep
//	    persist_for <duration>
//	    allow_shadowing
//	    delegate_to <zone> [own_labels]
//	    dns_challenge_override_domain <name>
//	}
//
// The words that `acme` has too mean the same as there. Only in the directive may dns name no
// provider, and then means that of the global option dns, see UseGlobalDNS. A word may be given once in a
// block; an issuer that already has values keeps those that the block does not name.
func (iss *Issuer) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	if !d.Next() { // the name of the issuer or directive
		return d.ArgErr()
	}
	if iss.ACMEIssuer == nil {
		iss.ACMEIssuer = new(caddytls.ACMEIssuer)
	}
	name, seen := d.Val(), make(map[string]bool)

	args := d.RemainingArgs()
	switch {
	case len(args) > 1:
		return d.Errf("%s takes one argument at most, the URL of the CA's directory; there are %d", name, len(args))
	case len(args) == 1:
		if strings.HasPrefix(args[0], "@") {
			return d.Errf("%s takes no matcher (%s): a certificate is for the whole site; the argument is the URL of the CA's directory, such as https://ca.example/directory", name, args[0])
		}
		if err := unlessPlaceholder(checkDirectoryURL)(args[0]); err != nil {
			return d.Errf("the argument of %s is the URL of the CA's directory: %w", name, err)
		}
		iss.CA, seen["dir"] = args[0], true
	}

	for d.NextBlock(0) {
		if err := iss.unmarshalWord(d, seen); err != nil {
			return err
		}
	}
	return nil
}

// checkWord refuses what is not expected in the block.
func (iss *Issuer) checkWord(d *caddyfile.Dispenser, word string, seen map[string]bool) error {
	why, isRefused := refused[word]
	switch {
	case word == "{":
		return d.Errf("unexpected {: no word of dns_persist but preferred_chains takes a block")
	case isRefused:
		return d.Errf("%s %s", word, why)
	case seen[word] && word == "dir":
		return d.Errf("the CA's directory is given twice, as argument or with dir: %s", iss.CA)
	case seen[word]:
		return d.Errf("%s is given twice", word)
	case word == "own_labels":
		return d.Errf("own_labels belongs behind the zone: delegate_to <zone> own_labels")
	}
	return nil
}

// unmarshalWord reads one line of the block, or one subdirective with its block.
func (iss *Issuer) unmarshalWord(d *caddyfile.Dispenser, seen map[string]bool) error {
	word := d.Val()
	if err := iss.checkWord(d, word, seen); err != nil {
		return err
	}
	seen[word] = true
	switch word {
	case "preferred_chains":
		chains, err := caddytls.ParseCaddyfilePreferredChainsOptions(d)
		if err != nil {
			return err
		}
		if chains.Smallest == nil && chains.RootCommonName == nil && chains.AnyCommonName == nil {
			return d.Errf("preferred_chains says nothing: use smallest, or a block with root_common_name or any_common_name")
		}
		iss.PreferredChains = chains
		return nil
	case "dns":
		return iss.unmarshalProvider(d)
	}
	spec, ok := words[word]
	if !ok {
		if near := operator.Near(word, strings.Split(allWords, ", ")); near != "" {
			return d.Errf("unrecognized subdirective '%s' of dns_persist: did you mean %s?", word, near)
		}
		return d.Errf("unrecognized subdirective '%s' of dns_persist: it is not one of %s", word, allWords)
	}
	args := d.RemainingArgs()
	if spec.syntax == "" && len(args) > 0 {
		return d.Errf("%s takes no argument: write it alone, or leave it out", word)
	}
	if len(args) < spec.min || (spec.max > 0 && len(args) > spec.max) {
		return d.Errf("wrong argument count for %s: it reads %s %s", word, word, spec.syntax)
	}
	for _, arg := range args {
		if strings.TrimSpace(arg) == "" {
			return d.Errf("%s has an empty argument: it reads %s %s", word, word, spec.syntax)
		}
	}
	if err := spec.set(iss, args); err != nil {
		return d.Errf("%s: %w", word, err)
	}
	if seen["delegate_to"] && seen["dns_challenge_override_domain"] {
		return d.Errf("delegate_to and dns_challenge_override_domain are both given, and a record is at one place: remove one of them")
	}
	return nil
}

// wordSpec is a subdirective: how many arguments it takes (max 0: any number), how
// they are named to a person, and what they set.
type wordSpec struct {
	min, max int
	syntax   string
	set      func(iss *Issuer, args []string) error
}

// allWords lists the words in the order of the documentation.
const allWords = "dir, email, profile, timeout, account_key, eab, trusted_roots, preferred_chains, lifetime, " +
	"account_url, account_uri, on_account_lost, resolvers, allow_private_ns, private_networks, check, propagation_timeout, propagation_delay, " +
	"policy, dialect, issuer_domain_name, rate_limit, max_parallel_orders, dns, dns_ttl, publish, persist_for, allow_shadowing, delegate_to, dns_challenge_override_domain"

var words = map[string]wordSpec{
	"dir":         text("<directory_url>", func(i *Issuer) *string { return &i.CA }, unlessPlaceholder(checkDirectoryURL)),
	"email":       text("<email>", func(i *Issuer) *string { return &i.Email }, unlessPlaceholder(checkEmail)),
	"profile":     text("<name>", func(i *Issuer) *string { return &i.Profile }, nil),
	"account_key": text("<pem>", func(i *Issuer) *string { return &i.AccountKey }, nil),
	"account_url": text("<url>", func(i *Issuer) *string { return &i.AccountURL }, unlessPlaceholder(checkAccountURL)),
	"account_uri": text("<uri>", func(i *Issuer) *string { return &i.AccountURI }, unlessPlaceholder(record.ValidAccountURI)),
	"issuer_domain_name": text("<name>", func(i *Issuer) *string { return &i.IssuerDomainName },
		unlessPlaceholder(record.ValidIssuerDomainName)),
	"on_account_lost": text(onAccountLostValues.syntax(), func(i *Issuer) *string { return &i.OnAccountLost }, onAccountLostValues.check),
	"policy":          text(policyValues.syntax(), func(i *Issuer) *string { return &i.Policy }, policyValues.check),
	"dialect":         text(dialectValues.syntax(), func(i *Issuer) *string { return &i.Dialect }, dialectValues.check),
	"check":           text(checkValues.syntax(), func(i *Issuer) *string { return &i.dns().Check }, checkValues.check),

	"publish": text(publishValues.syntax(), func(i *Issuer) *string { return &i.dns().Publish }, publishValues.check),
	"allow_shadowing": {0, 0, "", func(iss *Issuer, _ []string) error {
		iss.dns().AllowShadowing = true
		return nil
	}},

	"delegate_to": {1, 2, "<zone> [own_labels]", func(iss *Issuer, args []string) error {
		if err := checkDelegationName(args[0]); err != nil {
			return err
		}
		if len(args) > 1 && args[1] != "own_labels" {
			return fmt.Errorf("%q may not follow the zone: it reads delegate_to <zone> [own_labels]", args[1])
		}
		dns := iss.dns()
		dns.DelegateTo, dns.OwnLabels, dns.OverrideDomain = args[0], len(args) > 1, "" // the latter inherited
		return nil
	}},
	"dns_challenge_override_domain": text("<name>", func(i *Issuer) *string {
		i.dns().DelegateTo, i.dns().OwnLabels = "", false // inherited
		return &i.dns().OverrideDomain
	}, checkDelegationName),

	"dns_ttl":     duration(func(i *Issuer) *caddy.Duration { return &i.dns().TTL }),
	"persist_for": duration(func(i *Issuer) *caddy.Duration { return &i.PersistFor }),
	"timeout":     duration(func(i *Issuer) *caddy.Duration { return &i.ACMETimeout }),
	"lifetime":    duration(func(i *Issuer) *caddy.Duration { return &i.CertificateLifetime }),
	"propagation_timeout": {1, 1, "<duration>", func(iss *Issuer, args []string) error {
		if args[0] == "-1" { // what acme understands
			return errors.New("-1 is not a duration; to ask the CA without a look at DNS write check none")
		}
		value, err := parseDuration(args[0])
		iss.dns().PropagationTimeout = value
		return err
	}},
	"propagation_delay": duration(func(i *Issuer) *caddy.Duration { return &i.dns().PropagationDelay }),

	"eab": {2, 2, "<key_id> <mac_key>", func(iss *Issuer, args []string) error {
		iss.ExternalAccount = &acme.EAB{KeyID: args[0], MACKey: args[1]}
		return nil
	}},
	"trusted_roots": {1, 0, "<pem_files...>", func(iss *Issuer, args []string) error {
		iss.TrustedRootsPEMFiles = args
		return nil
	}},
	"resolvers": {1, 0, "<servers...>", func(iss *Issuer, args []string) error {
		for _, server := range args {
			if err := checkResolver(server); err != nil {
				return err
			}
		}
		iss.dns().Resolvers = args
		return nil
	}},
	"allow_private_ns": {0, 0, "", func(iss *Issuer, _ []string) error {
		iss.dns().AllowPrivateNS = true
		return nil
	}},
	"private_networks": {1, 0, "<ranges...>", func(iss *Issuer, args []string) error {
		if _, err := prefixes(args); err != nil {
			return err
		}
		iss.dns().PrivateNetworks = args
		return nil
	}},
	"max_parallel_orders": {1, 1, "<n>", func(iss *Issuer, args []string) error {
		n, err := strconv.Atoi(args[0])
		if err != nil || n < 1 {
			return fmt.Errorf("%q is not a number of orders: use a whole number from 1", args[0])
		}
		iss.MaxParallelOrders = n
		return nil
	}},
	"rate_limit": {2, 2, "<orders> <window>", func(iss *Issuer, args []string) error {
		orders, err := strconv.Atoi(args[0])
		if err != nil || orders < 1 {
			return fmt.Errorf("%q is not a number of orders: use a whole number from 1", args[0])
		}
		window, err := parseDuration(args[1])
		if err != nil {
			return err
		}
		iss.RateLimit = &RateLimit{Orders: orders, Window: window}
		return nil
	}},
}

const notNeeded = "is not needed with dns-persist-01, remove it"

// refused are words of `acme` that mean nothing here.
var refused = map[string]string{
	"disable_http_challenge":    notNeeded,
	"disable_tlsalpn_challenge": notNeeded,
	"alt_http_port":             notNeeded,
	"alt_tlsalpn_port":          notNeeded,
	"distributed":               notNeeded,
	"test_dir":                  notNeeded + ": a record names one CA and one account, so there is no test CA to try first",
}

// text is a word with one argument that is kept as it is.
func text(syntax string, field func(*Issuer) *string, check func(string) error) wordSpec {
	return wordSpec{1, 1, syntax, func(iss *Issuer, args []string) error {
		if check != nil {
			if err := check(args[0]); err != nil {
				return err
			}
		}
		*field(iss) = args[0]
		return nil
	}}
}

// duration is a word with one argument, a time above zero.
func duration(field func(*Issuer) *caddy.Duration) wordSpec {
	return wordSpec{1, 1, "<duration>", func(iss *Issuer, args []string) error {
		value, err := parseDuration(args[0])
		if err != nil {
			return err
		}
		*field(iss) = value
		return nil
	}}
}

func parseDuration(s string) (caddy.Duration, error) {
	value, err := caddy.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf("%q is not a duration such as 90s, 10m or 2d: %w", s, err)
	}
	if value <= 0 {
		return 0, fmt.Errorf("the duration has to be more than zero, it is %s", s)
	}
	return caddy.Duration(value), nil
}

// dns returns the DNS settings, made when first used.
func (iss *Issuer) dns() *DNS {
	if iss.DNS == nil {
		iss.DNS = new(DNS)
	}
	return iss.DNS
}

// UseGlobalDNS sets which provider the word dns without a name means while a Caddyfile is
// read: that of the global option dns, which is in reach of directives only. Nil is for none.
func (iss *Issuer) UseGlobalDNS(provider caddy.Module) {
	iss.globalDNS = nil
	if provider != nil {
		iss.globalDNS = caddyconfig.JSONModuleObject(provider, "name", provider.CaddyModule().ID.Name(), nil)
	}
}

// unmarshalProvider reads dns [<provider>] as acme does.
func (iss *Issuer) unmarshalProvider(d *caddyfile.Dispenser) error {
	if !d.NextArg() {
		if len(iss.globalDNS) == 0 {
			return d.Errf("dns names no provider: it reads dns <provider>; without a name it means the global option dns, which only the directive dns_persist in a site can reach, if it is set")
		}
		iss.dns().ProviderRaw = iss.globalDNS
		return nil
	}
	name := d.Val()
	if _, err := caddy.GetModule("dns.providers." + name); err != nil {
		return d.Errf("the DNS provider %s is not built in: `caddy list-modules` shows which are, and `xcaddy build --with` a module such as github.com/caddy-dns/%s adds one", name, name)
	}
	module, err := caddyfile.UnmarshalModule(d, "dns.providers."+name)
	if err != nil {
		return err
	}
	iss.dns().ProviderRaw = caddyconfig.JSONModuleObject(module, "name", name, nil)
	return nil
}

// noBind takes the place of an ACME issuer's bind_host while a Caddyfile is adapted.
const noBind = "dns_persist listens nowhere"

// IgnoreBind keeps the Caddyfile adapter from writing a site's `bind` into the issuer, which
// listens nowhere: two blocks of one host that differ in nothing else would have different
// policies, and that is an error. Nothing of it gets into the JSON.
func (iss *Issuer) IgnoreBind() {
	if iss.Challenges == nil {
		iss.Challenges = new(caddytls.ChallengesConfig)
	}
	if iss.Challenges.BindHost == "" {
		iss.Challenges.BindHost = noBind
	}
}

// MarshalJSON implements json.Marshaler.
func (iss *Issuer) MarshalJSON() ([]byte, error) {
	type plain Issuer
	if iss.ACMEIssuer == nil || iss.Challenges == nil || iss.Challenges.BindHost != noBind {
		return json.Marshal((*plain)(iss))
	}
	challenges := *iss.Challenges
	challenges.BindHost = ""
	acme := *iss.ACMEIssuer
	acme.Challenges = &challenges
	if reflect.ValueOf(challenges).IsZero() {
		acme.Challenges = nil
	}
	without := *iss
	without.ACMEIssuer = &acme
	return json.Marshal((*plain)(&without))
}
