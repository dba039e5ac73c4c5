package dnspersist

import (
	"strings"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/acmepersist"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/operator"
)

// accountOf is the same for issuers that use one account: of a CA, in a storage.
func (iss *Issuer) accountOf() string {
	_, cfg := iss.active()
	return strings.Join([]string{iss.CA, iss.AccountURL, iss.AccountKey, operator.StorageKey(cfg.Storage)}, " ")
}

// siblings is the acmepersist.Config.Siblings of an issuer that Caddy runs: issuers with one
// account may publish by different providers, at different places, for their sites.
func (iss *Issuer) siblings() func(identifier string) *acmepersist.Issuer {
	p, mine := iss.rt.app.livePlan(), iss.accountOf()
	return func(identifier string) *acmepersist.Issuer {
		for _, other := range p.Serving(identifier) {
			if other.rt != nil && other.rt.ready() && other.accountOf() == mine {
				active, _ := other.active()
				return active
			}
		}
		return nil
	}
}
