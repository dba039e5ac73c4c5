package record

import (
	"crypto/sha256"
	"encoding/base32"
	"strings"
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
