package acmepersist

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/propagation"
	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

// promises reports whether the directory says what a record needs, as a CA of draft -02
// has to, so that no order is needed to learn it.
func (d *directory) promises() bool { return d.Meta.prefix() != "" && d.Meta.names() != nil }

// predict says what records to ask for before a challenge is at hand: as configured, else
// as the directory says, else as the last challenge did.
func (s *session) predict(o offer) (terms, error) {
	meta := s.directory.Meta
	t := terms{prefix: meta.prefix(), dialect: record.DialectAccountURL}
	if t.prefix == "" {
		// half of a CA's frontends may still serve the older directory
		t.prefix = o.rememberedPrefix()
	}
	if t.prefix != "" {
		t.dialect = record.DialectHashed
	}
	switch s.iss.dialect() {
	case DialectAccountURL:
		t.dialect = record.DialectAccountURL
	case DialectHashed:
		t.dialect = record.DialectHashed
		if t.prefix == "" {
			return t, fmt.Errorf("dialect is hashed, but the directory of %s shows no conforming accountHashPrefix: remove the dialect option, the CA does not speak draft -02", s.iss.CA)
		}
	}
	switch {
	case s.iss.IssuerDomainName != "":
		t.names = []string{s.iss.IssuerDomainName}
		s.warnOfUnlisted()
	case meta.names() != nil:
		t.names = meta.names()
	case len(o.IssuerDomainNames) > 0:
		t.names = o.IssuerDomainNames
	case meta.prefix() == "":
		// at CAs of the deployed drafts these are the names that a challenge offers
		t.names = conformingNames(meta.CAAIdentities)
	}
	return t, nil
}

// CodeIssuerNotListed says that issuer_domain_name is not in the CA's directory.
const CodeIssuerNotListed propagation.Code = "issuer_not_listed"

// unlistedIssuer says that a configured issuer domain name is none of those that the directory
// promises for each challenge (section 3.2 of draft -02); it is empty if it is one, or if the
// directory promises none. A challenge may offer more names, so it is no error.
func (s *session) unlistedIssuer() string {
	mine, listed := s.iss.IssuerDomainName, s.directory.Meta.names()
	if mine == "" || listed == nil || slices.Contains(listed, mine) {
		return ""
	}
	return fmt.Sprintf("issuer_domain_name is %s, and the directory of %s promises %s only: the CA refuses records that name %s unless its challenges offer it; set it to a listed name, or remove it",
		mine, s.iss.CA, strings.Join(listed, ", "), mine)
}

// warnOfUnlisted logs that once for each directory.
func (s *session) warnOfUnlisted() {
	text := s.unlistedIssuer()
	s.iss.mu.Lock()
	known := s.iss.unlisted == text
	s.iss.unlisted = text
	s.iss.mu.Unlock()
	if text != "" && !known {
		s.logger.Warn("the configured issuer domain name is not in the CA's directory",
			zap.String("ca", s.iss.CA), zap.String("issuer_domain_name", s.iss.IssuerDomainName),
			zap.Strings("listed", s.directory.Meta.names()), zap.String("do", text))
	}
}

// known reports whether records can be asked for without an order.
func (s *session) known(o offer) bool { return o.yes() || s.directory.promises() }

// offered is our challenge in an authorization and what it wants to see.
type offered struct {
	acme.Challenge
	terms terms
}

// ourChallenge finds the challenge of our type.
func ourChallenge(authz acme.Authorization) (acme.Challenge, bool) {
	i := slices.IndexFunc(authz.Challenges, func(c acme.Challenge) bool { return c.Type == ChallengeType })
	if i < 0 {
		return acme.Challenge{}, false
	}
	return authz.Challenges[i], true
}

// directoryTries is how often the directory is read again for a member that only some
// frontends of a CA show yet.
const directoryTries = 4

// challenge finds our challenge in a pending authorization and holds it against
// the rules of the drafts. ok is false if the CA does not offer it.
func (s *session) challenge(ctx context.Context, authz acme.Authorization) (c offered, ok bool, err error) {
	if c.Challenge, ok = ourChallenge(authz); !ok {
		return c, false, nil
	}
	id := authz.IdentifierValue()
	if c.terms, err = s.challengeTerms(ctx, s.wire.challenge(c.URL), id); err != nil {
		return c, true, err
	}
	if mine := s.iss.IssuerDomainName; mine != "" {
		if !slices.Contains(c.terms.names, mine) {
			return c, true, fmt.Errorf("issuer_domain_name is %s, but the challenge for %s offers %s: correct or remove it", mine, id, strings.Join(c.terms.names, ", "))
		}
	}
	return c, true, nil
}

// challengeTerms decides by the challenge which dialect is spoken.
func (s *session) challengeTerms(ctx context.Context, m challengeMembers, id string) (terms, error) {
	malformed := func(err error) error {
		return fmt.Errorf("the challenge for %s is malformed, which is the CA's fault: %w", id, err)
	}
	t := terms{dialect: record.DialectAccountURL, prefix: s.prefix()}
	list := m.Deployed
	if m.Names != nil {
		list = m.Names
		t.dialect = record.DialectHashed
	}
	if list == nil {
		list = new(stringList)
	}
	var err error
	if t.names, err = offeredNames(*list); err != nil {
		return t, malformed(err)
	}
	if t.dialect == record.DialectHashed && t.prefix == "" {
		switch {
		case s.iss.dialect() == DialectAccountURL, m.Deployed != nil:
			t.dialect = record.DialectAccountURL
		default:
			if t.prefix, err = s.findPrefix(ctx); err != nil {
				return t, malformed(err)
			}
		}
	}
	if t.dialect == record.DialectHashed {
		if err := checkSubsets(*list, s.directory.Meta.names(), s.directory.Meta.identities()); err != nil {
			return t, malformed(err)
		}
	}
	switch s.iss.dialect() {
	case DialectAccountURL:
		t.dialect = record.DialectAccountURL
	case DialectHashed:
		t.dialect = record.DialectHashed
	}
	if uri := string(m.AccountURI); uri != "" && t.dialect == record.DialectAccountURL && uri != s.accountURI() {
		// a CA on its way may name our hashed account URI there
		if uri == s.hashedURI(t, id) || s.hashedWant(t, id).ServesAnyDomain(record.Value{AccountURI: uri}) {
			t.dialect = record.DialectHashed
			return t, nil
		}
		return t, &AccountURIError{CA: s.iss.CA, Identifier: id, Expected: uri, Ours: s.accountURI()}
	}
	return t, nil
}

// prefix returns the CA's accountHashPrefix as far as it is known.
func (s *session) prefix() string {
	if p := s.directory.Meta.prefix(); p != "" {
		return p
	}
	s.iss.mu.Lock()
	defer s.iss.mu.Unlock()
	if s.iss.offer == nil {
		return ""
	}
	return s.iss.offer.rememberedPrefix()
}

// findPrefix reads the directory again until a frontend shows the prefix.
func (s *session) findPrefix(ctx context.Context) (string, error) {
	for range directoryTries {
		s.iss.dirs.expire()
		fresh, err := s.iss.dirs.get(ctx, s.iss.CA, s.iss.transport(), s.iss.userAgent())
		if err != nil {
			return "", err
		}
		if p := fresh.Meta.prefix(); p != "" {
			d := *s.directory // others use it as well
			d.Meta.directoryMeta = fresh.Meta.directoryMeta
			s.directory = &d
			return p, nil
		}
		if err := sleep(ctx, minInterval); err != nil {
			return "", err
		}
	}
	return "", errors.New("it is one of draft -02, but the directory shows no conforming accountHashPrefix to make the record with")
}

// accountURI is what the record names in the deployed dialect: the account URL, unless
// the operator has pinned another URI.
func (s *session) accountURI() string {
	if s.iss.AccountURI != "" {
		return s.iss.AccountURI
	}
	return s.account.Location
}

// hashedWant is what the CA has to find for an identifier, in whichever dialect.
func (s *session) hashedWant(t terms, identifier string) record.Want {
	return record.Want{
		IssuerDomainNames:  t.names,
		Dialect:            t.dialect,
		Wildcard:           record.IsWildcard(identifier),
		AccountURI:         s.accountURI(),
		Domain:             record.Base(identifier),
		AccountURL:         s.account.Location,
		Thumbprint:         s.thumbprint,
		AccountHashPrefix:  t.prefix,
		EarlierThumbprints: s.earlierThumbprints,
		Reserve:            reserve,
	}
}

// hashedURI is the hashed account URI for an identifier, empty if there can be none.
func (s *session) hashedURI(t terms, identifier string) string {
	uri, err := record.HashedAccountURI(t.prefix, identifier, s.thumbprint, s.account.Location)
	if err != nil {
		return ""
	}
	return uri
}
