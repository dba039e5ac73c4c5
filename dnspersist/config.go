// Package dnspersist holds the Caddy modules of the ACME challenge
// dns-persist-01: the issuer tls.issuance.dns_persist and the app dns_persist,
// which sees to the domains that wait for their certificate. docs/design.md follows one
// certificate from the Caddyfile to the CA, call by call.
package dnspersist

import (
	"encoding/json"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddytls"
)

func init() {
	caddy.RegisterModule(Issuer{})
}

// Issuer obtains certificates with the ACME challenge dns-persist-01: the
// owner of a domain publishes one TXT record at `_validation-persist.<domain>`,
// once, and from then on certificates are obtained and renewed without any change
// in DNS, without a DNS credential and without a wait for propagation.
//
// All keys of the `acme` issuer apply, except those of challenges that are not
// used here: `challenges` is ignored (ordinary global options write to it), and
// `test_ca` is refused, because a record names one CA and one account.
//
// Certificates are stored where `acme` stores those of the same CA, so that a site
// that moves from one to the other keeps its certificate. The ACME account is
// chosen once: one of `acme` is adopted, or a new one registered. It is kept in a
// file of its own and never changed by an email address or by a CA that has
// forgotten it, because every record names it. Back that file up.
type Issuer struct {
	*caddytls.ACMEIssuer

	// The URL of the ACME account to use: this account or none, and no other is
	// ever registered or adopted in its place. Set it where the storage may come up
	// empty, or at a wrong mount: that is then an error, and not a new account that
	// no record names.
	AccountURL string `json:"account_url,omitempty"`

	// The URI that the CA expects as `accounturi` in the record, where that is not
	// the account URL. If a CA names another URI in its challenges, certificates are
	// obtained only once you have written it here.
	AccountURI string `json:"account_uri,omitempty"`

	// What to do when the CA no longer knows the account: `fail` (the default)
	// stops with an error that names the account, `replace` registers a new
	// one. Use `replace` only with private CAs that are reset now and then: every
	// record has to be published anew after it.
	OnAccountLost string `json:"on_account_lost,omitempty"`

	// How the record is looked for in DNS, and published.
	DNS *DNS `json:"dns,omitempty"`

	// Whether records are asked for with `policy=wildcard`: `auto` (the default)
	// asks for it where Caddy manages a wildcard of the domain, `exact` never does,
	// `wildcard` always does.
	Policy string `json:"policy,omitempty"`

	// In which form records name the account: `auto` (the default) goes by what
	// the CA's directory and challenges show, `account_url` writes the account's
	// URL (drafts -00 and -01), `hashed` a hash of the domain, the account's key and
	// its URL (draft -02). Set it only where a CA shows one thing and means another.
	Dialect string `json:"dialect,omitempty"`

	// The issuer domain name to write in the record, where the CA has several.
	// Default: the one of a record that is published already, else the first that the
	// CA names.
	IssuerDomainName string `json:"issuer_domain_name,omitempty"`

	// How long a record that Caddy publishes is good for (its `persistUntil`). It needs
	// `dns.publish` set to `keep`, which writes a successor well before the end.
	// Default: records have no end.
	PersistFor caddy.Duration `json:"persist_for,omitempty"`

	// How many orders are made in which time, for each CA and account. Default: 10
	// in 10 seconds, and no limit for a CA with `trusted_roots_pem_files`.
	RateLimit *RateLimit `json:"rate_limit,omitempty"`

	// The most orders that the CA is given to work on at once. How many it is given is found out by how quickly it
	// answers, and this is never exceeded. Default: 64.
	MaxParallelOrders int `json:"max_parallel_orders,omitempty"`

	// Makes an `internal` issuer in the same policy an error. Only configurations that earlier versions
	// adapted have it: the site directive `dns_persist` now refuses `tls internal` beside it by itself.
	Exclusive bool `json:"exclusive,omitempty"`

	// rt is what Provision makes; config fields stay as they were configured.
	rt *runtime

	// globalDNS is what the word dns without a name means, while a Caddyfile is read.
	globalDNS json.RawMessage
}

// DNS configures how the issuer looks for the record, and with what it publishes it.
type DNS struct {
	// The DNS provider that publishes the records. Any module works that can add
	// records. What others have at a name is never replaced.
	ProviderRaw json.RawMessage `json:"provider,omitempty" caddy:"namespace=dns.providers inline_key=name"`

	// What Caddy does with the provider by itself: `never` leaves it to the command
	// `caddy dns-persist publish`, `once` writes each record that is missing, one time,
	// `keep` also writes it again when it is gone, renews it before it ends, and writes
	// a new one when the account's key, the form of the record or the policy changes.
	// Default: `keep` with a provider of this object, `never` with one of `challenges`,
	// which is where the global option `acme_dns` puts it.
	Publish string `json:"publish,omitempty"`

	// The TTL of a published record where the name has none yet. Default: 1 hour.
	TTL caddy.Duration `json:"ttl,omitempty"`

	// Publishes also where a wildcard record such as `*.example.com` gives the host its
	// address today, and would no longer do so. The log, `records` and `check` show which
	// records to add first.
	AllowShadowing bool `json:"allow_shadowing,omitempty"`

	// A zone of your own, or a name within one, that the owners of domains delegate their
	// validation names to: each sets one CNAME from `_validation-persist.<domain>` to a
	// label of its own below this name, once for ever, and the record is published there.
	// The label is worked out from the domain; `caddy dns-persist records` prints the CNAME
	// records. Nothing is published for a CNAME that leads to another label, unless
	// `own_labels` is set. The CA has to follow CNAMEs.
	DelegateTo string `json:"delegate_to,omitempty"`

	// Lets owners of domains choose their label below `delegate_to`, such as
	// `customer-4711`, and have several of their CNAMEs lead to it. Not used are labels that
	// begin with an underscore, that are worked out from other domains, that are deeper than
	// directly below, or where somebody has other records. A label belongs to the first
	// registered domain that leads to it: what is published there is never widened for
	// another one.
	OwnLabels bool `json:"own_labels,omitempty"`

	// The one name to which the validation names of all domains of this issuer are CNAMEs,
	// in place of `delegate_to`. The record is published there.
	OverrideDomain string `json:"override_domain,omitempty"`

	// Recursive DNS servers, as `host` or `host:port`. They find the zone and its
	// name servers; with `check` set to `recursive` they are asked for the record
	// too. Default: those of the system.
	Resolvers []string `json:"resolvers,omitempty"`

	// Asks name servers at private, loopback and link-local addresses too, and trusts
	// resolvers about domains that the zone above denies. Set it only where the CA and the
	// domains are of your own network: whoever owns a domain chooses its name servers, and
	// could otherwise have servers of your network asked. Default: only with
	// `trusted_roots_pem_files`. Resolvers are asked wherever they are.
	AllowPrivateNS bool `json:"allow_private_ns,omitempty"`

	// Further networks, as CIDR ranges or addresses, in which no name server is asked
	// without `allow_private_ns`: those that only your machines reach although their
	// addresses are public ones, such as your own NAT64 prefix. They add to those of the app, `private_networks`.
	PrivateNetworks []string `json:"private_networks,omitempty"`

	// Who must show the record before the CA is asked: `authoritative` (the default)
	// asks each authoritative server of the zone, `recursive` asks only the
	// configured resolvers and wants all of them to show it, `none` does not look for the
	// record. CAA records are looked at, and failed validations limited, in any case.
	Check string `json:"check,omitempty"`

	// How long one attempt waits for the other servers once one shows the record. After
	// that the domain is watched in the background. Default: 1 minute.
	PropagationTimeout caddy.Duration `json:"propagation_timeout,omitempty"`

	// How long all servers must have shown the record before the CA is asked, where it
	// was seen to appear. Default: 10 seconds.
	PropagationDelay caddy.Duration `json:"propagation_delay,omitempty"`
}

// RateLimit is a number of orders in a window of time.
type RateLimit struct {
	// How many orders may be made in one window.
	Orders int `json:"orders,omitempty"`

	// The length of the window.
	Window caddy.Duration `json:"window,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (Issuer) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "tls.issuance.dns_persist",
		New: func() caddy.Module { return &Issuer{ACMEIssuer: new(caddytls.ACMEIssuer)} },
	}
}
