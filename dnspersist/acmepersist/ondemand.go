package acmepersist

import (
	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
)

// ownersTurn reports whether a record is not written yet because the owner of the domain has to act
// first. Whoever opens a connection chooses the names of on-demand TLS: that its CNAME leads to us is
// the owner's word. A name in a zone of the provider's has no CNAME, there the permission is the sign.
func (s *session) ownersTurn(w wanted, r propagation.Report) bool {
	return s.iss.OnDemand && w.target != "" && s.iss.Delegation.leadsTo(r.Alias(), w.identifier) != w.target
}
