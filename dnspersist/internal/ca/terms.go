package ca

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/record"
)

// Values of Config.Dialect.
const (
	// DialectAuto leaves it to the CA's challenges and directory. It is the default.
	DialectAuto = "auto"
	// DialectAccountURL asks for the account URL, as drafts -00 and -01 have it.
	DialectAccountURL = string(record.DialectAccountURL)
	// DialectHashed asks for the hashed account URI, as draft -02 has it.
	DialectHashed = string(record.DialectHashed)
)

// Terms is what a CA wants to see in a record, by its directory or a challenge.
type Terms struct {
	// Names are the issuer domain names, the preferred one first.
	Names   []string
	Dialect record.Dialect
	// Prefix is the CA's accountHashPrefix, empty if it is not known.
	Prefix string
}

// Equal reports whether a record for one is a record for the other.
func (t Terms) Equal(u Terms) bool {
	return t.Dialect == u.Dialect && t.Prefix == u.Prefix && sameSet(t.Names, u.Names)
}

// maxIssuerDomainNames is the most that a directory or challenge may list (section 3.1 of
// draft -02).
const maxIssuerDomainNames = 10

// conformingNames leaves out what is not an issuer domain name: it ends up in zone
// files and shell scripts.
func conformingNames(all []string) []string {
	var names []string
	for _, n := range all {
		if record.ValidIssuerDomainName(n) == nil && !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	return names
}

// stringList is an array of strings from a CA. Whatever is none of it counts as absent
// rather than spoiling the answer around it.
type stringList []string

// UnmarshalJSON implements json.Unmarshaler. It never fails.
func (l *stringList) UnmarshalJSON(data []byte) error {
	var items []json.RawMessage
	*l = nil
	if json.Unmarshal(data, &items) != nil {
		return nil
	}
	for _, item := range items {
		var s string
		if json.Unmarshal(item, &s) != nil {
			s = "" // no conforming name, but it counts
		}
		*l = append(*l, s)
	}
	return nil
}

// text is a string from a CA; whatever is none counts as absent.
type text string

// UnmarshalJSON implements json.Unmarshaler. It never fails.
func (t *text) UnmarshalJSON(data []byte) error {
	var s string
	*t = ""
	if json.Unmarshal(data, &s) == nil {
		*t = text(s)
	}
	return nil
}

// directoryMeta is what a directory has of the challenge (section 3.2 of draft -02).
type directoryMeta struct {
	CAAIdentities     stringList `json:"caaIdentities"`
	IssuerDomainNames stringList `json:"issuerDomainNames"`
	AccountHashPrefix text       `json:"accountHashPrefix"`
}

// Prefix returns the conforming accountHashPrefix, empty if there is none.
func (m directoryMeta) Prefix() string {
	if record.ValidAccountHashPrefix(string(m.AccountHashPrefix)) != nil {
		return ""
	}
	return string(m.AccountHashPrefix)
}

// names returns the set D of draft -02: nothing if the array does not conform, for then
// no record can be made before an order. One name that does not conform spoils all.
func (m directoryMeta) names() []string {
	names := conformingNames(m.IssuerDomainNames)
	n := len(m.IssuerDomainNames)
	if n == 0 || n > maxIssuerDomainNames || slices.ContainsFunc(m.IssuerDomainNames, isNoIssuer) {
		return nil
	}
	return names
}

func isNoIssuer(name string) bool { return record.ValidIssuerDomainName(name) != nil }

// Identities returns the set I of draft -02 as A-labels in lower case without a final dot;
// nothing if the array does not conform.
func (m directoryMeta) Identities() []string {
	var names []string
	for _, n := range m.CAAIdentities {
		n, err := record.NormalizeIssuerDomainName(n)
		if err != nil {
			return nil
		}
		names = append(names, n)
	}
	return names
}

// challengeMembers is what acmez does not pass on of a dns-persist-01 challenge.
type challengeMembers struct {
	Type string `json:"type"`
	URL  string `json:"url"`
	// AccountURI may be in challenges of draft -01.
	AccountURI text `json:"accounturi"`
	// Deployed is the member of drafts -00 and -01, Names that of draft -02.
	Deployed *stringList `json:"issuer-domain-names"`
	Names    *stringList `json:"issuerDomainNames"`
}

// OfferedNames returns the conforming names of a challenge. One that does not conform is
// the CA's fault and left out; none or more than ten make the challenge malformed.
func OfferedNames(list stringList) ([]string, error) {
	if n := len(list); n == 0 || n > maxIssuerDomainNames {
		return nil, fmt.Errorf("it names %d issuer domain names, the draft wants 1 to %d", n, maxIssuerDomainNames)
	}
	names := conformingNames(list)
	if len(names) == 0 {
		return nil, fmt.Errorf("none of its %d issuer domain names conforms: they have to be domain names in lower case without a final dot", len(list))
	}
	return names, nil
}

// checkSubsets holds the names of a challenge against those of the directory (section
// 3.2 of draft -02): all of D in C, and all of C in I, also what conforms to nothing.
func checkSubsets(challenge, directory, identities []string) error {
	for _, n := range directory {
		if !slices.Contains(challenge, n) {
			return fmt.Errorf("it lacks the issuer domain name %s, which the directory promises", n)
		}
	}
	if len(identities) == 0 {
		return nil
	}
	for _, n := range challenge {
		if !slices.Contains(identities, n) {
			return fmt.Errorf("its issuer domain name %q is not among the directory's caaIdentities %s", n, strings.Join(identities, ", "))
		}
	}
	return nil
}

// sameSet reports whether two lists hold the same names, in whatever order.
func sameSet(a, b []string) bool {
	for _, n := range a {
		if !slices.Contains(b, n) {
			return false
		}
	}
	return len(a) == len(b)
}
