package propagation

import (
	"fmt"
	"strconv"

	"github.com/miekg/dns"
)

// Bounds of what a server has to say that gets into messages.
const (
	maxQuoted = 100 // octets of one text
	maxErrors = 3   // extended errors of one answer
)

// quoted is a text from a server for terminals and logs, which it must not control: in
// quotes, with escapes for all that is not printable ASCII, and not too long.
func quoted(s string) string {
	if len(s) > maxQuoted {
		return strconv.QuoteToASCII(s[:maxQuoted]) + "..."
	}
	return strconv.QuoteToASCII(s)
}

// rcodeText is the rcode's name, with what the server says about it (extended
// DNS errors, RFC 8914).
func rcodeText(m *dns.Msg) string {
	text, ok := dns.RcodeToString[m.Rcode]
	if !ok {
		text = fmt.Sprintf("RCODE%d", m.Rcode)
	}
	opt := m.IsEdns0()
	if opt == nil {
		return text
	}
	shown := 0
	for _, o := range opt.Option {
		ede, ok := o.(*dns.EDNS0_EDE)
		if !ok {
			continue
		}
		if shown++; shown > maxErrors {
			break
		}
		text += fmt.Sprintf(" (%d", ede.InfoCode)
		if name, ok := dns.ExtendedErrorCodeToString[ede.InfoCode]; ok {
			text += " " + name
		}
		if ede.ExtraText != "" {
			text += ": " + quoted(ede.ExtraText)
		}
		text += ")"
	}
	return text
}
