package record

import (
	"crypto/sha256"
	"encoding/base32"
	"strings"

	"golang.org/x/net/publicsuffix"
)

// DelegationLabel is the label to which the validation name of a domain may be delegated by a
// CNAME, below a zone of somebody else's: 26 letters and digits that are always the same for
// the domain, and never those of another one. The domain is a normalized name without "*.",
// see Base.
func DelegationLabel(domain string) string {
	const octets = 16
	sum := sha256.Sum256([]byte(domain))
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:octets]))
}

// IsDelegationLabel reports whether a label is one that DelegationLabel makes, for whatever domain.
func IsDelegationLabel(label string) bool {
	return len(label) == 26 && strings.Trim(label, "abcdefghijklmnopqrstuvwxyz234567") == ""
}

// RegisteredDomain is the part of a normalized name that somebody has registered: one label below a
// public suffix. The owner of a name that has none, such as a public suffix, is taken to have that
// name alone.
func RegisteredDomain(name string) string {
	name = Base(name)
	if domain, err := publicsuffix.EffectiveTLDPlusOne(name); err == nil {
		return domain
	}
	return name
}
