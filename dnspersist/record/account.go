package record

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

// Dialect is the form of the account URI in a record.
type Dialect string

const (
	// DialectAccountURL is that of drafts -00 and -01: the account URL itself.
	DialectAccountURL Dialect = "account_url"
	// DialectHashed is that of draft -02: a hash of the name, the account's key and URL.
	DialectHashed Dialect = "hashed"
)

// AnyDomain takes the place of the name in a hash that is to serve many names
// (draft -02 section 4.1). Whoever sees such values knows that one account serves them.
const AnyDomain = "*"

// hashAlgorithm is the one that every CA of draft -02 accepts, as registered by RFC 6920.
const hashAlgorithm = "sha-256"

// thumbprintLen is the length of a base64url SHA-256, without padding.
const thumbprintLen = 43

// maxHashedURI is what the algorithm, its slash and the hash take of an account URI.
const maxHashedURI = len(hashAlgorithm) + 1 + thumbprintLen

// HashedAccountURI returns the account URI of draft -02 (section 4.1) for the name
// being validated, also when its record is at the end of a CNAME; a leading "*." is
// taken off. With AnyDomain as the domain one value serves all names of the account.
// The prefix is the CA's `accountHashPrefix`, the thumbprint that of the account's
// current key (RFC 7638, SHA-256, base64url without padding).
func HashedAccountURI(prefix, domain, thumbprint, accountURL string) (string, error) {
	if err := ValidAccountHashPrefix(prefix); err != nil {
		return "", err
	}
	if !isDigest(thumbprint) {
		return "", fmt.Errorf("the key thumbprint %q is not a SHA-256 in base64url of %d characters", thumbprint, thumbprintLen)
	}
	if err := checkHashedURL(accountURL); err != nil {
		return "", err
	}
	if domain != AnyDomain {
		normal, err := Normalize(domain)
		if err != nil {
			return "", err
		}
		domain = Base(normal)
	}
	return prefix + hashAlgorithm + "/" + digest(domain, thumbprint, accountURL), nil
}

// digest hashes what draft -02 section 4.1 lists. The domain has at most 233 octets.
func digest(domain, thumbprint, accountURL string) string {
	d := digestBytes(domain, thumbprint, accountURL)
	return string(d[:])
}

// digestBytes is digest without an allocation.
func digestBytes(domain, thumbprint, accountURL string) (out [thumbprintLen]byte) {
	var buf [512]byte
	in := append(buf[:0], byte(len(domain)))
	in = append(in, domain...)
	in = append(in, thumbprint...)
	in = append(in, accountURL...)
	sum := sha256.Sum256(in)
	base64.RawURLEncoding.Encode(out[:], sum[:])
	return out
}

// ValidAccountHashPrefix checks an `accountHashPrefix` before it gets into a zone file:
// with a hash appended it must be a valid account URI.
func ValidAccountHashPrefix(prefix string) error {
	if prefix == "" {
		return errors.New("the account hash prefix is empty")
	}
	if err := ValidAccountURI(prefix + strings.Repeat("A", maxHashedURI)); err != nil {
		return fmt.Errorf("the account hash prefix %q makes no account URI: %w", prefix, err)
	}
	if !strings.Contains(prefix, ":") {
		return fmt.Errorf("the account hash prefix %q is not an absolute URI", prefix)
	}
	return nil
}

// checkHashedURL wants an account URL of visible ASCII. It only goes into the hash, so a
// semicolon is welcome.
func checkHashedURL(url string) error {
	if url == "" {
		return errors.New("the account URL is empty")
	}
	for i := range len(url) {
		if c := url[i]; c < 0x21 || c > 0x7e {
			return fmt.Errorf("the account URL %q holds %q", url, c)
		}
	}
	return nil
}

// base64URL has the characters of base64url.
var base64URL = func() (set [256]bool) {
	for _, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") {
		set[c] = true
	}
	return set
}()

// isDigest reports whether s is a base64url SHA-256 without padding.
func isDigest(s string) bool {
	if len(s) != thumbprintLen {
		return false
	}
	for i := range len(s) {
		if !base64URL[s[i]] {
			return false
		}
	}
	return true
}
