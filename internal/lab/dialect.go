package lab

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/letsencrypt/pebble/v2/acme"
)

// The drafts of draft-ietf-acme-dns-persist that a CA can speak.
const (
	draft00 = "00"
	draft01 = "01"
	draft02 = "02"
)

// Dialect is how a CA speaks. The zero value is draft -01, as Pebble speaks it.
type Dialect struct {
	// Draft is the draft of the answers and validations: "00", "01" (the
	// default) or "02".
	Draft string
	// AcceptAccountURL has a CA of "02" accept records with the plain account
	// URL as well.
	AcceptAccountURL bool
	// AcceptHashed has a CA of "00" or "01" accept hashed records as well.
	AcceptHashed bool
	// Mixed is a CA whose frontends are not all of Draft: of the directories the
	// first, third and so on are of Draft and the others of -01; likewise of the
	// authorizations, and of the challenges that are answered on their own. Both
	// kinds of records are accepted.
	Mixed bool
	// BothMembers has challenges show issuer-domain-names and issuerDomainNames
	// side by side, as of a CA on its way.
	BothMembers bool
	// AcceptEarlierKeys has the CA accept a hash by a key that the account had
	// before, whatever the record. Draft -02 section 4.2 wants that; without it
	// the CA does so only for values that it has validated before, because a
	// client is better off not to rely on more.
	AcceptEarlierKeys bool
}

// dialects has the words of ParseDialect.
var dialects = map[string]Dialect{
	draft00: {Draft: draft00},
	draft01: {Draft: draft01},
	draft02: {Draft: draft02},
	"02+01": {Draft: draft02, AcceptAccountURL: true},
	"mixed": {Draft: draft02, Mixed: true},
}

// ParseDialect returns the dialect of a word: 00, 01 or 02 for a draft, 02+01
// for -02 that still accepts records of -01, mixed for frontends of -01 and -02.
func ParseDialect(s string) (Dialect, error) {
	d, ok := dialects[s]
	if !ok {
		words := slices.Sorted(maps.Keys(dialects))
		return Dialect{}, fmt.Errorf("no such dialect: %q, want one of %s", s, strings.Join(words, ", "))
	}
	return d, nil
}

// complete returns d with the defaults set.
func (d Dialect) complete() (Dialect, error) {
	switch d.Draft {
	case "":
		d.Draft = draft01
	case draft00, draft01, draft02:
	default:
		return d, fmt.Errorf("no such draft: %q", d.Draft)
	}
	return d, nil
}

// hashed says whether hashed records are accepted.
func (d Dialect) hashed() bool { return d.Draft == draft02 || d.AcceptHashed || d.Mixed }

// cleartext says whether records with the plain account URL are accepted.
func (d Dialect) cleartext() bool { return d.Draft != draft02 || d.AcceptAccountURL || d.Mixed }

// SetDialect changes how the CA speaks in its next answers and validations. It
// panics if there is no such draft.
func (c *CA) SetDialect(d Dialect) {
	d, err := d.complete()
	if err != nil {
		panic(fmt.Sprintf("lab: %v", err))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dialect = d
	clear(c.spoken)
}

// HashPrefix is the CA's accountHashPrefix, whether or not it shows it.
func (c *CA) HashPrefix() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.prefix()
}

// SetHashPrefix changes the accountHashPrefix; "" is the default. The earlier
// one is no longer accepted.
func (c *CA) SetHashPrefix(prefix string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hashPrefix = prefix
}

// prefix is the accountHashPrefix. c.mu is held.
func (c *CA) prefix() string {
	if c.hashPrefix != "" {
		return c.hashPrefix
	}
	return c.url + "/account-hash/"
}

// speak changes an answer of Pebble into one of the dialect. c.mu is held.
func (c *CA) speak(step string, object map[string]any) {
	d := c.dialect
	if d.Mixed {
		if c.spoken[step]%2 == 1 {
			d.Draft = draft01
		}
		c.spoken[step]++
	}
	switch step {
	case "directory":
		meta, ok := object["meta"].(map[string]any)
		if ok && d.Draft == draft02 {
			meta["accountHashPrefix"] = c.prefix()
			meta["issuerDomainNames"] = c.config.IssuerNames
		}
	case "authz":
		challenges, ok := object["challenges"].([]any)
		if !ok {
			return
		}
		shown := slices.Clone(challenges)
		for i, entry := range shown {
			if chal, ok := entry.(map[string]any); ok {
				// Challenges are kept for while an authorization is held back,
				// and may then be shown in another dialect.
				chal = maps.Clone(chal)
				d.speak(chal)
				shown[i] = chal
			}
		}
		object["challenges"] = shown
	case "challenge":
		d.speak(object)
	}
}

// speak changes a challenge of Pebble, which is one of draft -01.
func (d Dialect) speak(chal map[string]any) {
	if chal["type"] != acme.ChallengeDNSPersist01 {
		return
	}
	delete(chal, "token")
	if d.Draft != draft01 {
		delete(chal, "accounturi")
	}
	names, ok := chal["issuer-domain-names"]
	if !ok {
		return
	}
	if d.Draft == draft02 || d.BothMembers {
		chal["issuerDomainNames"] = names
	}
	if d.Draft == draft02 && !d.BothMembers {
		delete(chal, "issuer-domain-names")
	}
}
