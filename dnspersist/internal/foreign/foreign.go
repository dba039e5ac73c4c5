// Package foreign makes text that others have written fit for our messages: what a CA, a DNS
// server, a DNS provider or a certificate on the way to one contains ends up in terminals and logs,
// which it must not control, and which it must not fill.
package foreign

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// MaxText is the most that Text leaves of a text, in octets.
const MaxText = 1000

// Text returns s as a part of a message. What is not printable, such as controls, the escape
// sequences of terminals, line ends and characters that change the direction of writing, is
// escaped as in Go; what goes beyond MaxText is cut. Doing it twice changes nothing.
func Text(s string) string { return Cut(s, MaxText) }

// maxLine is the most that Line leaves of a text, in octets.
const maxLine = 4 * MaxText

// Line is Text with more room, for a whole message of ours with texts of others in it: an error of several is one
// line of theirs.
func Line(s string) string {
	if len(s) > 2*maxLine { // what is cut off anyway need not be looked through
		s = Cut(s, 2*maxLine)
	}
	return Cut(strings.ReplaceAll(s, "\n", "; "), maxLine)
}

// roomForCount is what the number of octets takes that were left out.
const roomForCount = 40

// Cut is Text with another bound, of a hundred octets or more.
func Cut(s string, limit int) string {
	if len(s) <= limit && isPlain(s) {
		return s
	}
	var b strings.Builder
	kept, read := 0, 0 // what is left, and of how much, if it has to be cut
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		part := s[i : i+size]
		if r == utf8.RuneError && size == 1 || !strconv.IsPrint(r) {
			quoted := strconv.Quote(part)
			part = quoted[1 : len(quoted)-1]
		}
		if b.Len()+len(part) > limit {
			return fmt.Sprintf("%s... (%d more octets)", b.String()[:kept], len(s)-read)
		}
		b.WriteString(part)
		i += size
		if b.Len() <= limit-roomForCount {
			kept, read = b.Len(), i
		}
	}
	return b.String()
}

// Quote returns at most limit octets of s in quotes, with escapes for all that is not printable
// ASCII: for texts of which each octet matters.
func Quote(s string, limit int) string {
	if len(s) > limit {
		return strconv.QuoteToASCII(s[:limit]) + "..."
	}
	return strconv.QuoteToASCII(s)
}

// maxValue is the most that is logged of a TXT value, in octets.
const maxValue = 4096

// Error returns err with the text that Text leaves of its own; err itself if that is the same.
// The result wraps err.
func Error(err error) error {
	if err == nil {
		return nil
	}
	return WithText(err, Text(err.Error()))
}

// WithText returns err with another text; err itself if it has that.
func WithText(err error, text string) error {
	if err.Error() == text {
		return err
	}
	return &cleanError{text, err}
}

// Values returns TXT values for a log: what is not printable is escaped, and one that is longer
// than all that DNS providers take is cut.
func Values(values []string) []string {
	clean := make([]string, len(values))
	for i, v := range values {
		clean[i] = Cut(v, maxValue)
	}
	return clean
}

type cleanError struct {
	text string
	err  error
}

func (e *cleanError) Error() string { return e.text }
func (e *cleanError) Unwrap() error { return e.err }

// JSON returns encoded JSON with all escaped that is not printable. It still means the same, for
// outside of its strings JSON is ASCII.
func JSON(data []byte) []byte {
	if isPlainJSON(data) {
		return data
	}
	out := make([]byte, 0, len(data)+len(data)/8)
	for i := 0; i < len(data); {
		r, size := utf8.DecodeRune(data[i:])
		switch {
		case r < utf8.RuneSelf && r != 0x7f || strconv.IsPrint(r):
			out = append(out, data[i:i+size]...)
		case r > 0xffff:
			r -= 0x10000
			out = fmt.Appendf(out, `\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
		i += size
	}
	return out
}

func isPlain(s string) bool {
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && size == 1 || !strconv.IsPrint(r) {
			return false
		}
		i += size
	}
	return true
}

func isPlainJSON(data []byte) bool {
	for _, c := range data {
		if c >= 0x7f {
			return false
		}
	}
	return true
}
