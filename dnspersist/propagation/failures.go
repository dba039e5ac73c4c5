package propagation

// Codes of what keeps a zone from being found.
const (
	CodeNotDelegated   Code = "domain_not_delegated"
	CodeZoneUnknown    Code = "zone_unknown"
	CodeResolverFailed Code = "resolver_failed"
	CodeBogus          Code = "dnssec_bogus"
)
