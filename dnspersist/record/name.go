package record

import (
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
	"golang.org/x/text/unicode/norm"
)

// Label is the first label of a validation name (section 4 of the draft).
const Label = "_validation-persist"

// maxIdentifierLen is the longest name in octets that can be validated: the label and
// its dot take 20 of the 253 that a domain name has.
const maxIdentifierLen = 253 - len(Label) - 1

// Normalize returns the name as it is sent as an identifier in an order: A-labels
// in lower case, without a final dot, a leading "*." kept. A name that cannot be
// validated is an error.
//
// It maps Unicode as Caddy does for certificates (idna.ToASCII), after it was composed (section 9.2
// of draft -02): "straße" stays another name than "strasse".
func Normalize(name string) (string, error) {
	trimmed := strings.TrimSuffix(strings.TrimSpace(name), ".")
	if trimmed == "" {
		return "", errors.New("the name is empty")
	}
	base, wildcard := strings.CutPrefix(trimmed, "*.")
	if _, err := netip.ParseAddr(strings.Trim(base, "[]")); err == nil {
		return "", fmt.Errorf("%s is an IP address, the challenge validates DNS names only: use another issuer for it", name)
	}
	if len(base) > 4*maxIdentifierLen { // no A-labels are this much shorter, and the mapping takes quadratic time
		return "", fmt.Errorf("the name beginning with %.40q has %d octets, with %s. before it at most %d fit", name, len(base), Label, maxIdentifierLen)
	}
	ascii, err := toASCII(base)
	if err != nil {
		return "", fmt.Errorf("%q is not a domain name: %w", name, err)
	}
	if len(ascii) > maxIdentifierLen {
		return "", fmt.Errorf("%q has %d octets, with %s. before it at most %d fit: use another challenge for it", name, len(ascii), Label, maxIdentifierLen)
	}
	if err := checkLabels(ascii); err != nil {
		return "", fmt.Errorf("%q is not a domain name: %w", name, err)
	}
	if wildcard {
		return "*." + ascii, nil
	}
	return ascii, nil
}

// toASCII turns U-labels into A-labels, all in lower case. A letter and its accent are one
// character, however they were typed.
func toASCII(name string) (string, error) {
	ascii, err := idna.ToASCII(norm.NFC.String(strings.ToLower(name)))
	return strings.ToLower(ascii), err
}

// checkLabels wants letters, digits, hyphens and underscores: what else a label could
// hold no CA takes.
func checkLabels(name string) error {
	for label := range strings.SplitSeq(name, ".") {
		switch {
		case label == "":
			return errors.New("it has an empty label")
		case len(label) > 63:
			return fmt.Errorf("the label %q has more than 63 octets", label)
		case label == "*":
			return errors.New("only the first label may be a wildcard")
		case label[0] == '-' || label[len(label)-1] == '-':
			return fmt.Errorf("the label %q begins or ends with a hyphen", label)
		}
		if rest := strings.TrimLeft(label, lettersDigits+"-_"); rest != "" {
			return fmt.Errorf("the label %q holds %q", label, rest[0])
		}
	}
	return nil
}

// Characters of names and URIs.
const (
	letters       = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	digits        = "0123456789"
	lettersDigits = letters + digits
)

// ValidationName returns the name at which the record for an identifier is published. A
// name and its wildcard share it.
func ValidationName(identifier string) (string, error) {
	normal, err := Normalize(identifier)
	if err != nil {
		return "", err
	}
	return Label + "." + Base(normal), nil
}

// Base returns the identifier without a leading "*.".
func Base(identifier string) string { return strings.TrimPrefix(identifier, "*.") }

// IsWildcard reports whether the identifier is a wildcard name.
func IsWildcard(identifier string) bool { return strings.HasPrefix(identifier, "*.") }

// normalizeIssuer returns an issuer domain name as CAs compare it: in lower case
// and without a final dot. Only ASCII changes case, or a name with a Kelvin sign would
// turn into another one; a final dot after another dot or white space ends no name and
// stays.
func normalizeIssuer(name string) string {
	if before, ok := strings.CutSuffix(name, "."); ok && !strings.HasSuffix(before, ".") && trimSpace(before) == before {
		name = before
	}
	if !isASCII(name) {
		return name
	}
	return strings.ToLower(name)
}

func isASCII(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r >= utf8.RuneSelf }) < 0
}

// ValidIssuerDomainName checks a name that comes from a CA or a configuration, before
// it gets into a zone file: A-labels of letters, digits and hyphens, at most 253
// octets. One label is enough (RFC 8659 section 4.2), as a private CA may have it.
func ValidIssuerDomainName(name string) error {
	if len(name) > 253 {
		return fmt.Errorf("the issuer domain name has %d octets, at most 253 are allowed", len(name))
	}
	if name == "" || strings.Contains(name, "_") {
		return fmt.Errorf("%q is not an issuer domain name such as ca.example", name)
	}
	if strings.ToLower(name) != name {
		return fmt.Errorf("%q is not an issuer domain name: it has to be in lower case", name)
	}
	if err := checkLabels(name); err != nil {
		return fmt.Errorf("%q is not an issuer domain name: %w", name, err)
	}
	return nil
}

// NormalizeIssuerDomainName returns a name from a directory's caaIdentities as issuer domain names
// are compared (section 3.2 of draft -02): as A-labels in lower case without a final dot.
func NormalizeIssuerDomainName(name string) (string, error) {
	if len(name) > 4*253 { // no A-labels are this much shorter, and the mapping takes quadratic time
		return "", fmt.Errorf("the issuer domain name has %d octets, at most 253 are allowed", len(name))
	}
	ascii, err := toASCII(strings.TrimSuffix(name, "."))
	if err != nil {
		return "", fmt.Errorf("%q is not an issuer domain name: %w", name, err)
	}
	return ascii, ValidIssuerDomainName(ascii)
}

// foldIssuer returns what a CA may take a name for that is not in ASCII, as browsers map what
// is typed into them (Boulder does): a byte order mark or a soft hyphen is nothing, a fullwidth
// letter the usual one. It is empty for all others.
func foldIssuer(name string) string {
	if len(name) > 4*253 || isASCII(name) {
		return ""
	}
	folded, err := idna.Lookup.ToASCII(norm.NFC.String(strings.ToLower(name)))
	if err != nil {
		return ""
	}
	return normalizeIssuer(folded)
}

// maxAccountURI is the longest account URI that is let in, in octets.
const maxAccountURI = 512

// ValidAccountURI checks an account URI that comes from a CA or a configuration,
// before it gets into a zone file or a script: an absolute URI, only characters that
// RFC 3986 allows, and of them no semicolon, which would end the value, and neither ' nor
// $, with which a CA could break out of a shell's quotes.
func ValidAccountURI(uri string) error {
	if len(uri) > maxAccountURI {
		return fmt.Errorf("the account URI has %d octets, at most %d are allowed", len(uri), maxAccountURI)
	}
	scheme, rest, ok := strings.Cut(uri, ":")
	if !ok || rest == "" || !isScheme(scheme) {
		return fmt.Errorf("%q is not an absolute URI", uri)
	}
	if rest := strings.TrimLeft(uri, lettersDigits+"-._~:/?#[]@!&()*+,=%"); rest != "" {
		return fmt.Errorf("the account URI %q holds %q, which a record cannot hold", uri, rest[0])
	}
	return nil
}

// isScheme reports whether s is a scheme by RFC 3986 section 3.1.
func isScheme(s string) bool {
	return s != "" && strings.IndexByte(letters, s[0]) >= 0 && strings.Trim(s, lettersDigits+"+-.") == ""
}

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
