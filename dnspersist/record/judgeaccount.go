package record

import (
	"fmt"
	"slices"
	"strings"
)

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
	hash, ok := strings.CutPrefix(uri, j.AccountHashPrefix)
	if !ok || j.AccountHashPrefix == "" {
		return false
	}
	hash, ok = strings.CutPrefix(hash, hashAlgorithm+"/")
	return ok && j.isOurs(hash)
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
