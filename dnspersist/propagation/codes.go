package propagation

import (
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation/internal/ask"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation/internal/zones"
)

// Code is a stable word for what was found, for programs and alerts.
type Code = ask.Code

// Codes of a [Diagnostic], which programs and alerts read in the JSON of commands and of the
// admin API. The first group is how far a record is visible, the second what is wrong with a
// server, the third what is wrong on the way to the record.
const (
	CodeAbsent     Code = "absent"
	CodePartial    Code = "partial"
	CodeBlocked    Code = "blocked"
	CodeConfirming Code = "confirming"
	CodeReady      Code = "ready"

	CodeUnreachable Code = "ns_unreachable" // no answer over UDP or TCP
	CodeServfail    Code = "ns_servfail"
	CodeLame        Code = "ns_lame" // listed for the zone, but not authoritative for it
	CodeBroken      Code = "ns_broken"
	CodeNoAddress   Code = "ns_no_address"
	CodePrivate     Code = "private_ns"
	CodeIntercepted Code = "intercepted"
	CodeTCPBlocked       = ask.CodeTCPBlocked
	CodeAAMissing   Code = "aa_missing"
	CodeEDNSBroken  Code = "edns_broken"
	CodeMismatch    Code = "ns_mismatch" // parent and zone list different servers

	CodeNotAsked         Code = "not_asked"   // to stay under a rate
	CodeLookBudget       Code = "look_budget" // the way to the record costs more than one look may
	CodeInsideServers    Code = "inside_ns"   // those that were asked are in this network
	CodePort53Blocked    Code = "port53_blocked"
	CodeAlias            Code = "alias_ok"
	CodeAliasLoop        Code = "alias_loop"
	CodeAliasDead        Code = "alias_dead"
	CodeAliasNotAgreed   Code = "alias_not_agreed" // only some servers show the CNAME
	CodeWildcard         Code = "wildcard"
	CodeNotDelegated          = zones.CodeNotDelegated
	CodeZoneUnknown           = zones.CodeZoneUnknown
	CodeResolverFailed        = zones.CodeResolverFailed
	CodeBogus                 = zones.CodeBogus
	CodeResolverNegative Code = "resolver_negative"
	CodeWrongName        Code = "wrong_name" // the record is published elsewhere
	CodeWildcardBreaks   Code = "wildcard_will_break"
	CodeUnsigned         Code = "zone_unsigned"
	CodeTooManyServers   Code = "too_many_servers"
)
