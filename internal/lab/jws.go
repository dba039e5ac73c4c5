package lab

import (
	"encoding/base64"
	"encoding/json"
)

// signed is what the body of a POST says.
type signed struct {
	kid     string
	jwk     []byte
	payload []byte
	order   struct {
		Identifiers []struct{ Type, Value string }
		Replaces    string
		Profile     string
	}
}

func parseSigned(step string, body []byte) signed {
	var s signed
	var jws struct{ Protected, Payload string }
	if json.Unmarshal(body, &jws) != nil {
		return s
	}
	if protected, err := base64.RawURLEncoding.DecodeString(jws.Protected); err == nil {
		var header struct {
			Kid string
			JWK json.RawMessage
		}
		json.Unmarshal(protected, &header)
		s.kid, s.jwk = header.Kid, header.JWK
	}
	s.payload, _ = base64.RawURLEncoding.DecodeString(jws.Payload)
	if step == "new-order" {
		json.Unmarshal(s.payload, &s.order)
	}
	return s
}
