package record

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/dnspersist/caddy-dnspersist/dnspersist/internal/foreign"
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
	if i := indexInvisible(url); i >= 0 {
		return fmt.Errorf("the account URL %q holds %q", url, url[i])
	}
	return nil
}

// isDigest reports whether s is a base64url SHA-256 without padding.
func isDigest(s string) bool {
	return len(s) == thumbprintLen && strings.Trim(s, lettersDigits+"-_") == ""
}

// accountVerdict is what a CA makes of an account URI.
type accountVerdict struct {
	code    Code
	outlook Outlook
	refusal refusal
	reason  string
}

// bad makes the verdict on a value that no CA accepts; reason is called only if somebody
// wants to read it.
func (j *judge) bad(code Code, r refusal, reason func() string) accountVerdict {
	v := accountVerdict{code: code, outlook: OutlookBad, refusal: r}
	if j.explain {
		v.reason = reason()
	}
	return v
}

// depends makes the verdict on a value that a CA may accept.
func (j *judge) depends(code Code, r refusal, reason func() string) accountVerdict {
	v := j.bad(code, r, reason)
	v.outlook = OutlookDepends
	return v
}

func (j *judge) account(uri string) accountVerdict {
	switch {
	case j.Dialect == DialectHashed:
		return j.hashed(uri)
	case uri == j.AccountURI:
		return accountVerdict{code: CodeGood, outlook: OutlookGood}
	case j.AccountHashPrefix != "" && strings.HasPrefix(uri, j.AccountHashPrefix) && j.hashed(uri).outlook != OutlookBad:
		return j.depends(CodeOtherDialect, refusedUnauthorized, func() string {
			return "it names this account by a hash, as draft -02 has it: a CA that still asks for the account URL may not accept it; publish accounturi=" + j.AccountURI
		})
	}
	return j.bad(CodeWrongAccount, refusedUnauthorized, func() string {
		return fmt.Sprintf("accounturi is %s, this account is %s%s", uri, j.AccountURI, j.nearMissOfURL(uri))
	})
}

// hashed judges an account URI at a CA of draft -02.
func (j *judge) hashed(uri string) accountVerdict {
	if uri == j.AccountURI && uri != "" {
		return j.depends(CodeOtherDialect, refusedMalformed, func() string {
			return "it names this account by its URL, as drafts -00 and -01 have it: a CA of draft -02 may no longer accept it; publish accounturi=" + j.hashedURI()
		})
	}
	rest, ok := strings.CutPrefix(uri, j.AccountHashPrefix)
	if !ok || j.AccountHashPrefix == "" {
		return j.bad(CodeMalformed, refusedMalformed, func() string {
			return fmt.Sprintf("accounturi is %s, the CA wants %s%s", uri, j.hashedURI(), j.nearMissOfPrefix(uri))
		})
	}
	algorithm, hash, ok := strings.Cut(rest, "/")
	switch {
	case !ok:
		return j.bad(CodeMalformed, refusedMalformed, func() string {
			if j.isOurs(rest) {
				return fmt.Sprintf("accounturi lacks %s/ before the hash: it has to be %s", hashAlgorithm, j.hashedURI())
			}
			return fmt.Sprintf("accounturi %s names no hash algorithm: it has to be %s", uri, j.hashedURI())
		})
	case algorithm != hashAlgorithm:
		// No CA documents another algorithm, and nobody was seen to use one.
		return j.bad(CodeMalformed, refusedMalformed|refusedUnauthorized, func() string {
			return fmt.Sprintf("accounturi %s names the hash algorithm %q, which a CA need not know: it has to be %s", uri, algorithm, j.hashedURI())
		})
	case !isDigest(hash):
		return j.bad(CodeMalformed, refusedMalformed, func() string {
			return fmt.Sprintf("the hash %s is not %d characters of base64url%s: accounturi has to be %s", hash, thumbprintLen, nearMissOfEncoding(hash), j.hashedURI())
		})
	case j.isOurs(hash):
		return accountVerdict{code: CodeGood, outlook: OutlookGood}
	case slices.ContainsFunc(j.EarlierThumbprints, func(t string) bool { return j.isHashOf(hash, t) }):
		return j.depends(CodeEarlierKey, refusedUnauthorized, func() string {
			return "it names this account by an earlier key: a CA goes on accepting what it knows; publish accounturi=" + j.hashedURI()
		})
	}
	return j.bad(CodeWrongAccount, refusedUnauthorized, func() string {
		return fmt.Sprintf("accounturi is %s, this account is %s%s", uri, j.hashedURI(), j.nearMissOfHash(hash))
	})
}

// isOurs reports whether the hash is of this account, for this name or for any. The
// two are computed once for all values, and only if they are needed.
func (j *judge) isOurs(hash string) bool {
	if j.own[0] == 0 {
		j.own = digestBytes(j.Domain, j.Thumbprint, j.AccountURL)
	}
	if hash == string(j.own[:]) {
		return true
	}
	if j.general[0] == 0 {
		j.general = digestBytes(AnyDomain, j.Thumbprint, j.AccountURL)
	}
	return hash == string(j.general[:])
}

func (j *judge) isHashOf(hash, thumbprint string) bool {
	return hash == digest(j.Domain, thumbprint, j.AccountURL) || hash == digest(AnyDomain, thumbprint, j.AccountURL)
}

// namesUs reports whether an account URI is this account's in either dialect.
func (j *judge) namesUs(uri string) bool {
	if uri == j.AccountURI {
		return uri != ""
	}
	hash, ok := strings.CutPrefix(uri, j.AccountHashPrefix+hashAlgorithm+"/")
	return ok && j.AccountHashPrefix != "" && j.isOurs(hash)
}

// hashedURI is what the record has to name, for messages.
func (j *judge) hashedURI() string {
	return j.AccountHashPrefix + hashAlgorithm + "/" + digest(j.Domain, j.Thumbprint, j.AccountURL)
}

// ServesAnyDomain reports whether the value names the account by a hash that serves all
// its names. Such a value is replaced by one of the same scope: a name is never given
// both for good, or the CA's vantage points could see different ones.
func (want Requirement) ServesAnyDomain(v Value) bool {
	return want.AccountHashPrefix != "" &&
		v.AccountURI == want.AccountHashPrefix+hashAlgorithm+"/"+digest(AnyDomain, want.Thumbprint, want.AccountURL)
}

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

const (
	// mostOverlooked is how long the parts may be that two texts have not in common, for somebody to
	// overlook them.
	mostOverlooked = 3
	// mostDiffering is how much may follow behind what they have in common: the number of an
	// account, and not the URL of another CA.
	mostDiffering = 24
)

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
// or two are exchanged. Another digit may be another account.
func isSlip(a, b string) bool {
	_, restA, restB := ends(a, b)
	switch {
	case len(restA)+len(restB) == 1:
		return true
	case len(restA) == 1 && len(restB) == 1:
		return strings.Trim(restA+restB, digits) != ""
	}
	return len(restA) == 2 && len(restB) == 2 && restA[0] == restB[1] && restA[1] == restB[0]
}

// nearlyNamesUs reports whether an account URI was probably meant to be this account's.
func (j *judge) nearlyNamesUs(uri string) bool {
	if j.Dialect == DialectHashed {
		// whatever the prefix: nobody else has the hash
		return isSlip(uri, j.hashedURI()) || j.isOurs(uri[strings.LastIndexByte(uri, '/')+1:])
	}
	return isSlip(uri, j.AccountURI) || strings.EqualFold(uri, j.AccountURI)
}

// difference shows where two long texts differ that have most in common, for nobody finds a letter
// in eighty.
func difference(published, wanted string) string {
	common, restA, restB := ends(published, wanted)
	alike := len(wanted) - len(restB)
	if len(restA) > mostOverlooked || len(restB) > mostOverlooked {
		// another number: what its end has in common means nothing
		alike, restA, restB = common, published[common:], wanted[common:]
	}
	if alike <= len(wanted)/2 || len(restA) > mostDiffering || len(restB) > mostDiffering {
		return ""
	}
	const shown = 12 // octets before the place
	place := "at the beginning"
	if common > 0 {
		place = "behind " + foreign.Text(wanted[max(0, common-shown):common])
	}
	return fmt.Sprintf(": they differ %s where %s is published and %s belongs",
		place, cmp.Or(foreign.Text(restA), "nothing"), cmp.Or(foreign.Text(restB), "nothing"))
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
