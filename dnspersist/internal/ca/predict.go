package ca

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

// HasTerms reports whether the directory has what a record needs, as that of a CA of draft -02
// has to, so that no order is needed to learn it.
func (d *Directory) HasTerms() bool { return d.Meta.Prefix() != "" && d.Meta.names() != nil }

// Terms is what records to ask for before a challenge is at hand.
func (c *Client) Terms(o Offer) (Terms, error) {
	c.warnOfUnlisted()
	return predict(c.Directory, o, c.server.Dialect, c.server.IssuerDomainName)
}

// predict works out what records to ask for: as configured, else by the directory, else by the last
// challenge.
func predict(d *Directory, o Offer, dialect, issuer string) (Terms, error) {
	t := Terms{Prefix: d.Meta.Prefix(), Dialect: record.DialectAccountURL}
	if t.Prefix == "" {
		// half of a CA's frontends may still serve the older directory
		t.Prefix = o.rememberedPrefix()
	}
	if t.Prefix != "" {
		t.Dialect = record.DialectHashed
	}
	switch dialect {
	case DialectAccountURL:
		t.Dialect = record.DialectAccountURL
	case DialectHashed:
		t.Dialect = record.DialectHashed
		if t.Prefix == "" {
			return t, fmt.Errorf("dialect is hashed, but the directory of %s shows no conforming accountHashPrefix: remove the dialect option, the CA does not speak draft -02", d.URL)
		}
	}
	switch {
	case issuer != "":
		t.Names = []string{issuer}
	case d.Meta.names() != nil:
		t.Names = d.Meta.names()
	case len(o.IssuerDomainNames) > 0:
		t.Names = o.IssuerDomainNames
	case d.Meta.Prefix() == "":
		// at CAs of the deployed drafts these are the names that a challenge offers
		t.Names = conformingNames(d.Meta.CAAIdentities)
	}
	return t, nil
}

// CodeIssuerNotListed is an issuer_domain_name that is not in the CA's directory.
const CodeIssuerNotListed propagation.Code = "issuer_not_listed"

// UnlistedIssuer is a note that a configured issuer domain name is not one of those that the directory
// promises for each challenge (section 3.2 of draft -02); it is empty if it is one, or if the
// directory promises none. A challenge may offer more names, so it is not an error.
func (c *Client) UnlistedIssuer() string {
	mine, listed := c.server.IssuerDomainName, c.Directory.Meta.names()
	if mine == "" || listed == nil || slices.Contains(listed, mine) {
		return ""
	}
	return fmt.Sprintf("issuer_domain_name is %s, and the directory of %s promises %s only: the CA refuses records that name %s unless its challenges offer it; set it to a listed name, or remove it",
		mine, c.server.URL, strings.Join(listed, ", "), mine)
}

// warnOfUnlisted logs that once for each directory.
func (c *Client) warnOfUnlisted() {
	text := c.UnlistedIssuer()
	c.server.mu.Lock()
	known := c.server.unlisted == text
	c.server.unlisted = text
	c.server.mu.Unlock()
	if text != "" && !known {
		c.logger.Warn("the configured issuer domain name is not in the CA's directory",
			zap.String("ca", c.server.URL), zap.String("issuer_domain_name", c.server.IssuerDomainName),
			zap.Strings("listed", c.Directory.Meta.names()), zap.String("do", text))
	}
}

// HasTerms reports whether records can be asked for without an order.
func (c *Client) HasTerms(o Offer) bool { return o.IsYes() || c.Directory.HasTerms() }

// Challenge is our challenge in an authorization and what it wants to see.
type Challenge struct {
	acme.Challenge
	Terms Terms
}

// FindChallenge finds the challenge of our type.
func FindChallenge(authz acme.Authorization) (acme.Challenge, bool) {
	i := slices.IndexFunc(authz.Challenges, func(c acme.Challenge) bool { return c.Type == ChallengeType })
	if i < 0 {
		return acme.Challenge{}, false
	}
	return authz.Challenges[i], true
}

// directoryTries is how often the directory is read again for a member that only some
// frontends of a CA show yet.
const directoryTries = 4

// Challenge finds our challenge in a pending authorization and checks it by
// the rules of the drafts. ok is false if the CA does not offer it.
func (c *Client) Challenge(ctx context.Context, authz acme.Authorization, who Identity) (found Challenge, ok bool, err error) {
	if found.Challenge, ok = FindChallenge(authz); !ok {
		return found, false, nil
	}
	id := authz.IdentifierValue()
	if found.Terms, err = c.challengeTerms(ctx, c.wire.challenge(found.URL), id, who); err != nil {
		return found, true, err
	}
	if mine := c.server.IssuerDomainName; mine != "" {
		if !slices.Contains(found.Terms.Names, mine) {
			return found, true, fmt.Errorf("issuer_domain_name is %s, but the challenge for %s offers %s: correct or remove it", mine, id, strings.Join(found.Terms.Names, ", "))
		}
	}
	return found, true, nil
}

// challengeTerms decides by the challenge which dialect is spoken.
func (c *Client) challengeTerms(ctx context.Context, m challengeMembers, id string, who Identity) (Terms, error) {
	malformed := func(err error) error {
		return fmt.Errorf("the challenge for %s is malformed, which is the CA's fault: %w", id, err)
	}
	t := Terms{Dialect: record.DialectAccountURL, Prefix: c.prefix()}
	list := m.Deployed
	if m.Names != nil {
		list = m.Names
		t.Dialect = record.DialectHashed
	}
	if list == nil {
		list = new(stringList)
	}
	var err error
	if t.Names, err = OfferedNames(*list); err != nil {
		return t, malformed(err)
	}
	if t.Dialect == record.DialectHashed && t.Prefix == "" {
		switch {
		case c.server.Dialect == DialectAccountURL, m.Deployed != nil:
			t.Dialect = record.DialectAccountURL
		default:
			if t.Prefix, err = c.findPrefix(ctx); err != nil {
				return t, malformed(err)
			}
		}
	}
	if t.Dialect == record.DialectHashed {
		if err := checkSubsets(*list, c.Directory.Meta.names(), c.Directory.Meta.Identities()); err != nil {
			return t, malformed(err)
		}
	}
	switch c.server.Dialect {
	case DialectAccountURL:
		t.Dialect = record.DialectAccountURL
	case DialectHashed:
		t.Dialect = record.DialectHashed
	}
	if uri := string(m.AccountURI); uri != "" && t.Dialect == record.DialectAccountURL && uri != who.URI {
		// a CA on its way may name our hashed account URI there
		if uri == t.hashedURI(id, who) || t.Requirement(id, who).ServesAnyDomain(record.Value{AccountURI: uri}) {
			t.Dialect = record.DialectHashed
			return t, nil
		}
		return t, &AccountURIError{CA: c.server.URL, Identifier: id, Expected: uri, Ours: who.URI}
	}
	return t, nil
}

// prefix returns the CA's accountHashPrefix as far as it is known.
func (c *Client) prefix() string {
	if p := c.Directory.Meta.Prefix(); p != "" {
		return p
	}
	if o := c.server.cachedOffer(); o != nil {
		return o.rememberedPrefix()
	}
	return ""
}

// findPrefix reads the directory again until a frontend shows the prefix.
func (c *Client) findPrefix(ctx context.Context) (string, error) {
	for range directoryTries {
		c.server.Expire()
		fresh, err := c.server.fetch(ctx)
		if err != nil {
			return "", err
		}
		if p := fresh.Meta.Prefix(); p != "" {
			d := *c.Directory // others use it as well
			d.Meta.directoryMeta = fresh.Meta.directoryMeta
			c.Directory = &d
			return p, nil
		}
		if err := Sleep(ctx, MinInterval); err != nil {
			return "", err
		}
	}
	return "", errors.New("it is one of draft -02, but the directory shows no conforming accountHashPrefix to make the record with")
}

// Identity is what records name of an account.
type Identity struct {
	URL string
	// URI is what they name in the deployed dialect: the URL, unless the operator has pinned
	// another one.
	URI string
	// Thumbprint is that of the account's key, EarlierThumbprints of former keys.
	Thumbprint         string
	EarlierThumbprints []string
}

// reserve is how long a record must still be good for when the CA is asked.
const reserve = time.Minute

// Requirement is what the CA has to find for an identifier, in whichever dialect.
func (t Terms) Requirement(identifier string, who Identity) record.Requirement {
	return record.Requirement{
		IssuerDomainNames:  t.Names,
		Dialect:            t.Dialect,
		Wildcard:           record.IsWildcard(identifier),
		AccountURI:         who.URI,
		Domain:             record.Base(identifier),
		AccountURL:         who.URL,
		Thumbprint:         who.Thumbprint,
		AccountHashPrefix:  t.Prefix,
		EarlierThumbprints: who.EarlierThumbprints,
		Reserve:            reserve,
	}
}

// hashedURI is the hashed account URI for an identifier, empty if there can be none.
func (t Terms) hashedURI(identifier string, who Identity) string {
	uri, err := record.HashedAccountURI(t.Prefix, identifier, who.Thumbprint, who.URL)
	if err != nil {
		return ""
	}
	return uri
}

// PreferredChain chooses among the chains that a CA offers, the first where
// nothing matches the preference.
func PreferredChain(chains []acme.Certificate, prefer certmagic.ChainPreference) acme.Certificate {
	chains = slices.Clone(chains)
	if prefer.Smallest != nil {
		sort.SliceStable(chains, func(i, j int) bool {
			if *prefer.Smallest {
				return len(chains[i].ChainPEM) < len(chains[j].ChainPEM)
			}
			return len(chains[i].ChainPEM) > len(chains[j].ChainPEM)
		})
	}
	for _, name := range prefer.AnyCommonName {
		for _, c := range chains {
			if slices.Contains(issuerNames(c.ChainPEM), name) {
				return c
			}
		}
	}
	for _, name := range prefer.RootCommonName {
		for _, c := range chains {
			if names := issuerNames(c.ChainPEM); len(names) > 0 && names[len(names)-1] == name {
				return c
			}
		}
	}
	return chains[0]
}

// issuerNames returns the common names of the issuers in a chain, the leaf's
// issuer first.
func issuerNames(chain []byte) []string {
	var names []string
	for {
		var block *pem.Block
		if block, chain = pem.Decode(chain); block == nil {
			return names
		}
		if cert, err := x509.ParseCertificate(block.Bytes); err == nil {
			names = append(names, cert.Issuer.CommonName)
		}
	}
}

// derBlocks joins the certificates of a PEM bundle.
func derBlocks(bundle []byte) []byte {
	var der []byte
	for {
		var block *pem.Block
		if block, bundle = pem.Decode(bundle); block == nil {
			return der
		}
		if block.Type == "CERTIFICATE" {
			der = append(der, block.Bytes...)
		}
	}
}

// Leaf returns the certificate at the beginning of a PEM bundle.
func Leaf(chain []byte) (*x509.Certificate, error) {
	certs, err := x509.ParseCertificates(derBlocks(chain))
	if err != nil {
		return nil, err
	}
	if len(certs) == 0 {
		return nil, errors.New("there is no certificate in it")
	}
	return certs[0], nil
}
