package lab

import (
	"encoding/base64"
	"slices"
	"strings"

	"github.com/letsencrypt/pebble/v2/acme"
)

// accountPath is where Pebble has its accounts.
const accountPath = "/my-account/"

// judge turns a TXT value at a domain's validation name into one that Pebble,
// which knows draft -01 only, judges as a CA of the dialect should: accepted with
// the account URL, malformed with a value that has spaces, and unauthorized with
// an account URI that it takes for somebody else's.
func (c *CA) judge(domain, value string) string {
	if c.mustFail(domain) {
		return ""
	}
	c.mu.Lock()
	d := c.dialect
	c.mu.Unlock()
	if !d.hashed() {
		return value
	}
	parts := strings.Split(value, ";")
	if !slices.Contains(c.config.IssuerNames, trimSpace(parts[0])) {
		return value
	}
	for i, param := range parts[1:] {
		tag, uri, ok := strings.Cut(param, "=")
		if !ok || strings.ToLower(trimSpace(tag)) != "accounturi" {
			continue
		}
		uri = trimSpace(uri)
		if judged := c.judgeURI(d, domain, value, uri); judged != uri {
			parts[1+i] = tag + "=" + judged
		}
	}
	return strings.Join(parts, ";")
}

// judgeURI is judge for the account URI of a value.
func (c *CA) judgeURI(d Dialect, domain, value, uri string) string {
	if uri == "" {
		return uri
	}
	rest, ok := strings.CutPrefix(uri, c.HashPrefix())
	if !ok {
		if d.Draft != draft02 || d.cleartext() && strings.HasPrefix(uri, c.url+accountPath) {
			return uri
		}
		return uri + " (not under the accountHashPrefix)"
	}
	algorithm, hash, _ := strings.Cut(rest, "/")
	if algorithm != hashAlgorithm {
		return uri + " (unknown hash algorithm)"
	}
	if digest, err := base64.RawURLEncoding.Strict().DecodeString(hash); err != nil || len(hash) != 43 || len(digest) != 32 {
		return uri + " (not a hash of 43 characters base64url)"
	}

	c.mu.Lock()
	account, earlier := c.accountOf(domain, hash)
	chals := c.validationsOf(domain, account)
	c.mu.Unlock()
	if account == "" || earlier && !d.AcceptEarlierKeys && !c.witnessed(chals, value) {
		return uri // which is no account's URL
	}
	c.witness(chals, value)
	return account
}

// validationsOf returns the challenges of an account for a domain and its
// wildcard. c.mu is held.
func (c *CA) validationsOf(domain, account string) []*chalState {
	var chals []*chalState
	for _, chal := range c.byChal {
		if chal.kind == acme.ChallengeDNSPersist01 && chal.authz.order.account == account &&
			strings.ToLower(strings.TrimPrefix(chal.authz.identifier, "*.")) == domain {
			chals = append(chals, chal)
		}
	}
	return chals
}

// witness takes down that validations under way have seen a good value. Whether
// they succeed is known only later.
func (c *CA) witness(chals []*chalState, value string) {
	for _, chal := range chals {
		if status, _, _, _ := chalStatus(chal.challenge); status == acme.StatusProcessing {
			c.mu.Lock()
			if chal.seen == nil {
				chal.seen = make(map[string]bool)
			}
			chal.seen[value] = true
			c.mu.Unlock()
		}
	}
}

// witnessed says whether one of these validations saw a value and succeeded.
func (c *CA) witnessed(chals []*chalState, value string) bool {
	return slices.ContainsFunc(chals, func(chal *chalState) bool {
		c.mu.Lock()
		seen := chal.seen[value]
		c.mu.Unlock()
		status, _, _, _ := chalStatus(chal.challenge)
		return seen && status == acme.StatusValid
	})
}

// trimSpace takes off what Pebble takes for white space.
func trimSpace(s string) string { return strings.Trim(s, " \t") }
