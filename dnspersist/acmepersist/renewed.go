package acmepersist

import (
	"context"
	"time"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/site"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

// renewed lists those of the identifiers of a validation name that this configuration serves:
// names that were tried once stay in storage. A policy for all names serves whatever was ever
// tried, so those without a valid certificate are left out where others have one.
func renewed(ctx context.Context, identifiers []string, serving func(string) *Issuer) []string {
	var served, valid []string
	for _, id := range identifiers {
		iss := serving(id)
		if iss == nil || iss.Policy == site.PolicyExact && record.IsWildcard(id) {
			continue
		}
		served = append(served, id)
		cert := StoredCertificate(ctx, iss.Storage, IssuerKey(iss.CA), id)
		if cert != nil && time.Now().Before(cert.NotAfter) {
			valid = append(valid, id)
		}
	}
	if len(valid) > 0 {
		return valid
	}
	return served
}
