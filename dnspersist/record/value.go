package record

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Value is the content of a record (section 4 of the draft).
type Value struct {
	// IssuerDomainName names the CA.
	IssuerDomainName string
	// AccountURI names the account that may validate.
	AccountURI string
	// Wildcard is policy=wildcard: the record also serves *.<name>.
	Wildcard bool
	// PersistUntil is the end of the permission; zero if there is none. Seconds count.
	PersistUntil time.Time
}

// String returns the value in its canonical spelling.
func (v Value) String() string {
	s := normalizeIssuer(v.IssuerDomainName) + "; accounturi=" + v.AccountURI
	if v.Wildcard {
		s += "; policy=wildcard"
	}
	if !v.PersistUntil.IsZero() {
		s += "; persistUntil=" + strconv.FormatInt(v.PersistUntil.Unix(), 10)
	}
	return s
}

// maxString is the longest character-string of a TXT record in octets (RFC 1035).
const maxString = 255

// Split cuts a value into the character-strings of one TXT record.
func Split(value string) []string {
	parts := make([]string, 0, len(value)/maxString+1)
	for len(value) > maxString {
		parts, value = append(parts, value[:maxString]), value[maxString:]
	}
	return append(parts, value)
}

// Quote returns the value as a zone file has it: quoted character-strings, with
// what must be escaped escaped.
func Quote(value string) string { return QuoteWith(value, "\\%03d") }

// QuoteWith is Quote where octets that are not printable ASCII have another format than the
// zone file's \DDD: Route 53 has them in octal.
func QuoteWith(value, octet string) string {
	var b strings.Builder
	for i, part := range Split(value) {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteByte('"')
		for j := range len(part) {
			switch c := part[j]; {
			case c == '"' || c == '\\':
				b.WriteByte('\\')
				b.WriteByte(c)
			case c < ' ' || c > '~':
				fmt.Fprintf(&b, octet, c)
			default:
				b.WriteByte(c)
			}
		}
		b.WriteByte('"')
	}
	return b.String()
}

// errMalformed is wrapped by the errors of Parse.
var errMalformed = errors.New("malformed")

// errNoAccount is made once: it is what most TXT records of other kinds come to.
var errNoAccount = fmt.Errorf("%w: accounturi is missing", errMalformed)

// Parsed is a value as it was read.
type Parsed struct {
	Value
	// Issuer is the issuer domain name as written; Value has it normalized.
	Issuer string
	// PolicyRaw is the policy as written. Any other than wildcard counts as none.
	PolicyRaw string
	// HasPersistUntil is true if there is an end, also one before 1970.
	HasPersistUntil bool
	// RepeatedTag is an unknown tag that appears twice, in lower case: some CAs take
	// the value for malformed, others read over it.
	RepeatedTag string
}

// Parse reads one TXT value by the grammar of RFC 8659 section 4.2, with the bounds
// that CAs set. The issuer domain name is returned also with an error, for a
// malformed value of another CA is none of our business.
func Parse(txt string) (Parsed, error) {
	var p Parsed
	issuer, rest, more := strings.Cut(txt, ";")
	p.Issuer = trimSpace(issuer)
	p.IssuerDomainName = normalizeIssuer(p.Issuer)
	if p.IssuerDomainName == "" {
		return p, fmt.Errorf("%w: there is no issuer domain name", errMalformed)
	}
	var seen [8]string
	tags := seen[:0]
	for more {
		var param string
		param, rest, more = strings.Cut(rest, ";")
		param = trimSpace(param)
		if param == "" {
			if !more {
				return p, fmt.Errorf("%w: it ends with a semicolon", errMalformed)
			}
			return p, fmt.Errorf("%w: there is an empty parameter", errMalformed)
		}
		tag, value, ok := strings.Cut(param, "=")
		if !ok {
			return p, fmt.Errorf("%w: the parameter %q has no =", errMalformed, param)
		}
		tag, value = trimSpace(tag), trimSpace(value)
		if tag == "" {
			return p, fmt.Errorf("%w: the parameter %q has no tag", errMalformed, param)
		}
		// Lower case rather than folded: CAs take "perſistUntil" for another tag.
		switch tag { // the usual spellings cost nothing
		case "accounturi", "policy":
		case "persistUntil":
			tag = tagPersistUntil
		default:
			tag = strings.ToLower(tag)
		}
		switch {
		case !slices.Contains(tags, tag):
			tags = append(tags, tag)
		case isKnown(tag):
			return p, fmt.Errorf("%w: %q appears twice", errMalformed, tag)
		default:
			p.RepeatedTag = tag
		}
		if i := indexInvisible(value); i >= 0 {
			return p, fmt.Errorf("%w: the value of %q holds %q", errMalformed, tag, value[i])
		}
		if err := p.set(tag, value); err != nil {
			return p, err
		}
	}
	if p.AccountURI == "" {
		return p, errNoAccount
	}
	return p, nil
}

// tagPersistUntil is the tag in lower case.
const tagPersistUntil = "persistuntil"

func isKnown(tag string) bool {
	return tag == "accounturi" || tag == "policy" || tag == tagPersistUntil
}

// set takes one parameter, its tag in lower case. Unknown ones are ignored.
func (p *Parsed) set(tag, value string) error {
	switch tag {
	case "accounturi":
		if value == "" {
			return fmt.Errorf("%w: accounturi is empty", errMalformed)
		}
		p.AccountURI = value
	case "policy":
		p.PolicyRaw = value
		p.Wildcard = value == "wildcard" || strings.EqualFold(value, "wildcard")
	case tagPersistUntil:
		seconds, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			return fmt.Errorf("%w: persistUntil=%s is not a number of seconds", errMalformed, value)
		}
		p.PersistUntil, p.HasPersistUntil = time.Unix(seconds, 0).UTC(), true
	}
	return nil
}

// indexInvisible is where the first octet is that is not visible ASCII, -1 if there is none.
func indexInvisible(s string) int {
	return strings.IndexFunc(s, func(r rune) bool { return r < 0x21 || r > 0x7e })
}

// trimSpace removes the white space of RFC 8659, space and tab.
func trimSpace(s string) string { return strings.Trim(s, " \t") }
