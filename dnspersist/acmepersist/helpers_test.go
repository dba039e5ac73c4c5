package acmepersist

import "github.com/caddyserver/certmagic"

func certmagicPreference(smallest *bool) certmagic.ChainPreference {
	return certmagic.ChainPreference{Smallest: smallest}
}
