package lab

import (
	"crypto"
	"crypto/sha256"
	"encoding/base64"
	"path"
	"slices"
	"strings"

	"github.com/go-jose/go-jose/v4"
)

// hashAlgorithm is the name of SHA-256 in hashed account URIs.
const hashAlgorithm = "sha-256"

// manyNames is the domain that is hashed for a value that serves all names.
const manyNames = "*"

// learnKey takes down the key of an account, which is new or not, from the JWS
// of a request that Pebble has accepted.
func (c *CA) learnKey(p *pebble, account string, jwk []byte, created bool) {
	var key jose.JSONWebKey
	if key.UnmarshalJSON(jwk) != nil {
		return
	}
	digest, err := key.Thumbprint(crypto.SHA256)
	if err != nil {
		return
	}
	// Pebble answers 200 to a change to the key of another account, too, and
	// changes nothing.
	if owner, err := p.store.GetAccountByKey(&key); err != nil || owner == nil || owner.ID != path.Base(account) {
		return
	}
	thumbprint := base64.RawURLEncoding.EncodeToString(digest)

	c.mu.Lock()
	defer c.mu.Unlock()
	var keys []string
	if !created {
		keys = slices.DeleteFunc(slices.Clone(c.keys[account]), func(k string) bool { return k == thumbprint })
	}
	c.keys[account] = append(keys, thumbprint)
}

// Thumbprint is the RFC 7638 thumbprint of an account's current key, base64url,
// "" if it is not known.
func (c *CA) Thumbprint(accountURL string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.thumbprint(accountURL)
}

// thumbprint is Thumbprint with c.mu held.
func (c *CA) thumbprint(accountURL string) string {
	keys := c.keys[accountURL]
	if len(keys) == 0 {
		return ""
	}
	return keys[len(keys)-1]
}

// HashedURI is the accounturi of draft -02 for an account with its current key.
// The domain is without "*."; "*" is the scope of many names. It is "" if the
// account's key is not known.
//
// It is computed here and not by the code under test, which it judges.
func (c *CA) HashedURI(accountURL, domain string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	thumbprint := c.thumbprint(accountURL)
	if thumbprint == "" {
		return ""
	}
	return c.prefix() + hashAlgorithm + "/" + accountHash(strings.ToLower(domain), thumbprint, accountURL)
}

// accountHash is the hash of draft -02 section 4.1.
func accountHash(domain, thumbprint, accountURL string) string {
	digest := sha256.Sum256(append([]byte{byte(len(domain))}, domain+thumbprint+accountURL...))
	return base64.RawURLEncoding.EncodeToString(digest[:])
}

// accountOf is the account for which a hash stands at a domain, and whether it
// is by an earlier key; "" if there is none. c.mu is held.
func (c *CA) accountOf(domain, hash string) (account string, earlier bool) {
	for account, keys := range c.keys {
		for i, key := range slices.Backward(keys) {
			if hash == accountHash(domain, key, account) || hash == accountHash(manyNames, key, account) {
				return account, i < len(keys)-1
			}
		}
	}
	return "", false
}
