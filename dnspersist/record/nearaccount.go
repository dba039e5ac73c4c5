package record

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/url"
	"strings"
)

const reasonStaging = ": one is an account of the CA's staging environment, which is another account"

// nearMissOfURL names what somebody may have confused in an account URL.
func (j *judge) nearMissOfURL(uri string) string {
	a, errA := url.Parse(uri)
	b, errB := url.Parse(j.AccountURI)
	switch {
	case errA != nil || errB != nil:
		return ""
	case a.Host != b.Host && strings.Contains(a.Host, "staging") != strings.Contains(b.Host, "staging"):
		return reasonStaging
	case strings.EqualFold(uri, j.AccountURI):
		return ": letters in upper and lower case differ"
	case strings.TrimSuffix(uri, "/") == strings.TrimSuffix(j.AccountURI, "/"):
		return ": the slash at the end differs"
	case strings.Contains(uri, "/"+hashAlgorithm+"/"):
		return ": it is hashed as in draft -02, this CA wants the account URL"
	}
	return difference(uri, j.AccountURI)
}

// mostDiffering is how long the parts may be that two texts have not in common, for somebody
// to overlook them.
const mostDiffering = 3

// ends cuts off what two texts have in common at their begin and at their end.
func ends(a, b string) (common int, restA, restB string) {
	for common < len(a) && common < len(b) && a[common] == b[common] {
		common++
	}
	restA, restB = a[common:], b[common:]
	for restA != "" && restB != "" && restA[len(restA)-1] == restB[len(restB)-1] {
		restA, restB = restA[:len(restA)-1], restB[:len(restB)-1]
	}
	return common, restA, restB
}

// isSlip reports whether a text was meant to be another: a character is too many, or missing,
// or two are exchanged. Another digit may well be another account.
func isSlip(a, b string) bool {
	_, restA, restB := ends(a, b)
	switch {
	case len(restA)+len(restB) == 1:
		return true
	case len(restA) == 1 && len(restB) == 1:
		return !isDigit(restA[0]) || !isDigit(restB[0])
	}
	return len(restA) == 2 && len(restB) == 2 && restA[0] == restB[1] && restA[1] == restB[0]
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// nearly reports whether two texts are hard to distinguish.
func nearly(a, b string) bool {
	common, restA, restB := ends(a, b)
	return common > len(b)/2 && len(restA) <= mostDiffering && len(restB) <= mostDiffering
}

// nearlyNamesUs reports whether an account URI was probably meant to be this account's.
func (j *judge) nearlyNamesUs(uri string) bool {
	if j.Dialect == DialectHashed {
		// whatever the prefix: nobody else has the hash
		return isSlip(uri, j.hashedURI()) || j.isOurs(uri[strings.LastIndexByte(uri, '/')+1:])
	}
	return isSlip(uri, j.AccountURI) || strings.EqualFold(uri, j.AccountURI)
}

// difference shows where two long texts differ that hardly do, for nobody finds a letter in
// eighty.
func difference(published, wanted string) string {
	if !nearly(published, wanted) {
		return ""
	}
	const shown = 12 // octets before the place
	common, restA, restB := ends(published, wanted)
	return fmt.Sprintf(": they differ behind %q, where %q is published and %q belongs", wanted[max(0, common-shown):common], restA, restB)
}

// nearMissOfPrefix names what somebody may have confused in front of the hash.
func (j *judge) nearMissOfPrefix(uri string) string {
	_, hash, found := strings.Cut(uri, hashAlgorithm+"/")
	switch {
	case strings.HasPrefix(uri, hashAlgorithm+"/") || isDigest(uri):
		return ": the account hash prefix is missing"
	case strings.Contains(uri, "staging") != strings.Contains(j.AccountHashPrefix, "staging"):
		return reasonStaging
	case found && j.isOurs(hash):
		return ": the hash is right, what is before it is not the CA's account hash prefix"
	}
	return ""
}

// nearMissOfEncoding names usual ways to write a hash wrongly.
func nearMissOfEncoding(hash string) string {
	switch {
	case strings.HasSuffix(hash, "="):
		return ", the padding (=) has to go"
	case strings.ContainsAny(hash, "+/"):
		return ", it is base64 rather than base64url (- and _ in place of + and /)"
	}
	if _, err := hex.DecodeString(hash); err == nil && len(hash) == 64 {
		return ", it is hexadecimal"
	}
	return ""
}

// nearMissOfHash recomputes the hash with the usual mistakes.
func (j *judge) nearMissOfHash(hash string) string {
	raw, err := base64.RawURLEncoding.DecodeString(j.Thumbprint)
	switch {
	case hash == digest("*."+j.Domain, j.Thumbprint, j.AccountURL):
		return `: the hash was computed with the "*." of the wildcard name, which has to be taken off`
	case hash == digest(Label+"."+j.Domain, j.Thumbprint, j.AccountURL):
		return ": the hash was computed over the validation name, it has to be over " + j.Domain
	case hash == digest(j.Domain+".", j.Thumbprint, j.AccountURL):
		return ": the hash was computed with a final dot after the name, which has to be taken off"
	case err == nil && hash == digest(j.Domain, string(raw), j.AccountURL):
		return ": the thumbprint was hashed in its 32 raw octets, it has to be the 43 characters of its base64url form"
	case hash == withoutLength(j.Domain, j.Thumbprint, j.AccountURL):
		return ": the octet with the name's length was left out of the hash"
	case hash == j.Thumbprint:
		return ": it is the thumbprint of the key, not the hash over name, thumbprint and account URL"
	}
	return difference(hash, digest(j.Domain, j.Thumbprint, j.AccountURL))
}

// withoutLength is the hash of somebody who forgot the first octet.
func withoutLength(domain, thumbprint, accountURL string) string {
	sum := sha256.Sum256([]byte(domain + thumbprint + accountURL))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}
