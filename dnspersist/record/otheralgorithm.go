package record

import (
	"crypto/sha3"
	"crypto/sha512"
	"encoding/base64"
	"fmt"
)

// algorithm judges hashes that a CA may accept besides SHA-256: the ones that RFC 6920's
// registry has with at least 256 bits.
func (j *judge) algorithm(uri, algorithm, hash string) accountVerdict {
	other, known := otherAlgorithms[algorithm]
	if !known {
		return j.bad(CodeMalformed, refusedMalformed, func() string {
			return fmt.Sprintf("accounturi %s names the unknown hash algorithm %q: it has to be %s", uri, algorithm, j.hashedURI())
		})
	}
	if !isBase64URL(hash, other.length) {
		return j.bad(CodeMalformed, refusedMalformed, func() string {
			return fmt.Sprintf("the %s hash %s is not %d characters of base64url: every CA accepts accounturi=%s", algorithm, hash, other.length, j.hashedURI())
		})
	}
	matches := other.sum == nil // some we cannot compute
	for _, domain := range []string{j.Domain, AnyDomain} {
		if !matches {
			in := append([]byte{byte(len(domain))}, domain+j.Thumbprint+j.AccountURL...)
			matches = hash == base64.RawURLEncoding.EncodeToString(other.sum(in))
		}
	}
	if !matches {
		return j.bad(CodeWrongAccount, refusedMalformed|refusedUnauthorized, func() string {
			return fmt.Sprintf("accounturi is %s, this account is %s", uri, j.hashedURI())
		})
	}
	return j.depends(CodeOtherAlgorithm, refusedMalformed|refusedUnauthorized, func() string {
		return fmt.Sprintf("it is hashed by %s: only the CA's documentation tells whether it accepts that; every CA accepts accounturi=%s", algorithm, j.hashedURI())
	})
}

// The lengths in base64url, without padding, of hashes of 256, 384 and 512 bits.
const (
	len256 = thumbprintLen
	len384 = 64
	len512 = 86
)

// otherAlgorithm is the length of its hashes and, where we can compute them, how.
type otherAlgorithm struct {
	length int
	sum    func([]byte) []byte
}

// otherAlgorithms are RFC 6920's registered hashes of 256 bits and more, SHA-256 apart.
var otherAlgorithms = map[string]otherAlgorithm{
	"sha-384":     {len384, func(in []byte) []byte { sum := sha512.Sum384(in); return sum[:] }},
	"sha-512":     {len512, func(in []byte) []byte { sum := sha512.Sum512(in); return sum[:] }},
	"sha3-256":    {len256, func(in []byte) []byte { sum := sha3.Sum256(in); return sum[:] }},
	"sha3-384":    {len384, func(in []byte) []byte { sum := sha3.Sum384(in); return sum[:] }},
	"sha3-512":    {len512, func(in []byte) []byte { sum := sha3.Sum512(in); return sum[:] }},
	"blake2s-256": {length: len256},
	"blake2b-256": {length: len256},
	"blake2b-512": {length: len512},
	"k12-256":     {length: len256},
	"k12-512":     {length: len512},
}
