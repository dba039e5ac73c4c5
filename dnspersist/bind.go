package dnspersist

import (
	"encoding/json"
	"reflect"

	"github.com/caddyserver/caddy/v2/modules/caddytls"
)

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
